"""Tests of loggers: a logger of a plug-in gets the values that metrics.jsonl gets, and is dropped when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from adafocus.training.logger import RunLogger, log


class Notes:
    def __init__(self, folder: Path, *, step: int) -> None:
        self.said = [("made", folder.name, step)]

    def record(self, *what: object) -> None:
        self.said.append(("record", *what))

    def picture(self, *what: object) -> None:
        self.said.append(("picture", *what))

    def close(self) -> None:
        self.said.append(("close",))


def test_a_logger_is_told_what_the_journal_is_told(tmp_path: Path) -> None:
    made: list[Notes] = []

    def make(folder: Path, *, step: int) -> Notes:
        made.append(Notes(folder, step=step))
        return made[0]

    with RunLogger(tmp_path, loggers={"notes": make}) as run_logger:
        run_logger.rewind(0, 3)
        run_logger.record("train", 4, {"loss": 0.5})
        run_logger.picture("patches", 4, "image")
    assert made[0].said == [
        ("made", tmp_path.name, 3),
        ("record", "train", 4, {"loss": 0.5}),
        ("picture", "patches", 4, "image"),
        ("close",),
    ]
    with RunLogger(tmp_path, active=False, loggers={"notes": make}) as run_logger:
        run_logger.rewind(0, 3)
        run_logger.record("train", 4, {"loss": 0.5})
    assert len(made) == 1


@pytest.mark.parametrize("where", ["__init__", "record", "picture", "close"])
def test_a_logger_that_raises_is_named_once_and_ends_nothing(tmp_path: Path, where: str, monkeypatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *values: warned.append(text % values))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nserver")

    broken = type("Broken", (Notes,), {where: fail})
    kept = Notes(tmp_path, step=0)
    with RunLogger(tmp_path, loggers={"broken": broken, "kept": lambda folder, *, step: kept}) as run_logger:
        run_logger.rewind(0, 0)
        for step in (1, 2):
            run_logger.record("train", step, {"loss": 0.5})
            run_logger.picture("patches", step, "image")
    assert len(warned) == 1 and "logger broken" in warned[0] and "RuntimeError: no server" in warned[0]
    assert len(kept.said) == 6 and run_logger.path.read_text().count("\n") == 2
