"""Tests of a command that starts in a run folder: new run, continuation, finished run or refusal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from adafocus import config
from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_json
from adafocus.runs.folder import (
    CONTINUE,
    FINISHED,
    NEW,
    InUse,
    check_free,
    claim,
    describe,
    inspect,
    lock,
    stored_config,
)


def test_new_continued_finished_and_refused(tmp_path: Path) -> None:
    assert inspect(tmp_path / "a", {"x": 1}, None) == NEW
    (tmp_path / "a").mkdir()
    describe(tmp_path / "a", {"x": 1}, overrides=["x=1"], choices={"patch": "28"})
    assert read_json(tmp_path / "a/overrides.json") == ["x=1"]
    assert inspect(tmp_path / "a", {"x": 1}, {"x": 1}) == CONTINUE
    write_json(tmp_path / "a/summary.json", {"state": "finished"})
    assert inspect(tmp_path / "a", {"x": 1}, {"x": 1}) == FINISHED
    with pytest.raises(UserError, match="differs in deep.y, x"):
        inspect(tmp_path / "a", {"x": 2, "deep": {"y": 1, "z": 0}}, {"x": 1, "deep": {"y": 2, "z": 0}})


def test_a_folder_has_one_owner_at_a_time_and_copies_of_it_are_none(tmp_path: Path) -> None:
    check_free(tmp_path)
    holder = os.fork()
    if not holder:  # another process locks the folder, starts a loader process and is killed
        with lock(tmp_path):
            if not os.fork():
                time.sleep(5)
                os._exit(0)
            (tmp_path / "held").touch()
            time.sleep(60)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(InUse, match="in use by another process"), lock(tmp_path):
        pass
    with pytest.raises(UserError, match="in use by another process"):
        check_free(tmp_path)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with lock(tmp_path):  # the lock is free at once: the surviving loader process does not hold it
        pass


def test_keys_that_are_newer_than_a_run_do_not_make_it_another(tmp_path: Path) -> None:
    values = {
        "dataset": {"name": "glyphs", "source": "glyphs", "flip": 0.0, "frame_size": 96},
        "method": {"name": "recognizer"},
        "backbone": {"glance": "tiny_glance", "focus": "tiny_focus"},
        "patch": {"size": 28},
        "segments": {"glance": 4},
        "stage": {"name": "joint"},
        "schedule": {"lr": 0.1, "epochs": 1, "batch_size": 8, "base_batch_size": 8},
    }
    full = config.identity(config.to_dict(config.from_dict(values)))
    assert config.stored_identity(values) == full
    assert config.stored_identity({**values, "gone": 1}) == {**values, "gone": 1}
    assert config.stored_identity(None) is None


def test_a_mistake_found_late_does_not_block_the_corrected_command(tmp_path: Path) -> None:
    write_json(tmp_path / "status.json", {"state": "failed"})
    describe(tmp_path, {"x": 1}, overrides=[], choices={})
    assert inspect(tmp_path, {"x": 2}, {"x": 1}) == NEW
    with claim(tmp_path, fresh=True):
        assert not (tmp_path / "status.json").exists()
    (tmp_path / "stages/1").mkdir(parents=True)
    (tmp_path / "stages/1/last.pt").touch()
    with pytest.raises(UserError, match="another configuration"):
        inspect(tmp_path, {"x": 2}, {"x": 1})


@pytest.mark.parametrize("held", [".lock", ".start.lock"])
def test_a_second_start_is_refused_before_it_writes(tmp_path: Path, held: str) -> None:
    holder = os.fork()  # a lock belongs to a process, so a second process is needed
    if not holder:
        with lock(tmp_path, held):
            (tmp_path / "held").touch()
            time.sleep(60)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="in use"), claim(tmp_path, fresh=True):
        pass
    assert (tmp_path / "metrics.jsonl").exists()
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)


def test_a_checkpoint_says_what_its_folder_holds_when_the_configuration_is_gone_or_damaged(tmp_path: Path) -> None:
    import torch

    assert stored_config(tmp_path) is None
    (tmp_path / "config.json").write_text('{"x": ')
    assert stored_config(tmp_path) is None
    torch.save({"format": 1, "config": {"x": 5}}, tmp_path / "last.pt")
    assert stored_config(tmp_path) == {"x": 5}
    (tmp_path / "config.json").unlink()
    assert stored_config(tmp_path) == {"x": 5}
    write_json(tmp_path / "config.json", {"x": 6})
    assert stored_config(tmp_path) == {"x": 6}
