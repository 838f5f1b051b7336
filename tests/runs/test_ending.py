"""Tests of runs that fail: one line on the terminal, the state in status.json, and no half-written file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import config
from adafocus.data.loader import loader_trouble
from adafocus.runs import job
from adafocus.runs.ending import explain
from adafocus.runs.folder import describe
from adafocus.training.checkpoint import BEST, LAST, all_finite


def new(folder: Path, **changes: str) -> Path:
    typed = runs.arguments(**{"schedule__epochs": "1", "output__save_seconds": "0", **changes})
    describe(folder, config.to_dict(composed(*typed)), overrides=typed, choices={})
    return folder


def ends(folder: Path, capfd: pytest.CaptureFixture, code: int = 2) -> str:
    """Runs the job of a folder in this process, expects this exit status, and returns its only line of error."""
    capfd.readouterr()
    assert job.run(folder) == code
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "interrupted"))]
    assert not list(folder.glob("*.part"))
    return line


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new(tmp_path_factory.mktemp("run"))
    assert job.run(folder) == 0
    return folder


def test_a_checkpoint_that_is_not_of_this_run_is_one_line(finished: Path, capfd: pytest.CaptureFixture) -> None:
    good = torch.load(finished / LAST, weights_only=True)
    bad_moments = {**good["optimizer"], "state": {0: {"momentum_buffer": torch.ones(1, 2, 3)}}}
    bad_weights = {name: value * float("nan") for name, value in good["model"].items()}
    for damaged in (
        b"",
        b"some text\n",
        (finished / LAST).read_bytes()[:2000],
        {"format": 1},
        {**good, "model": 3},
        {**good, "model": {"weight": torch.ones(2)}},
        {**good, "model": {3: torch.ones(2)}},
        {**good, "model": bad_weights},
        {**good, "optimizer": [1]},
        {**good, "optimizer": bad_moments},
        {**good, "progress": {**good["progress"], "step": "x"}},
        {**good, "progress": {**good["progress"], "step": 10**6}},
        {**good, "journal": None},
    ):
        if isinstance(damaged, bytes):
            (finished / LAST).write_bytes(damaged)
        else:
            torch.save(damaged, finished / LAST)
        line = ends(finished, capfd)
        assert str(finished / LAST) in line and "delete it" in line, line
        assert status(finished)["state"] == "failed"
    torch.save(good, finished / LAST)
    (finished / "status.json").write_text("{")  # damaged, and not needed
    (finished / "summary.json").write_text("[")
    assert job.run(finished) == 0 and status(finished)["state"] == "finished"


def test_a_full_disk_is_one_line_and_the_older_checkpoint_continues(tmp_path: Path, capfd, monkeypatch) -> None:
    folder = new(tmp_path)
    calls, sync = [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written (No space left on device)" in ends(folder, capfd)
    monkeypatch.setattr(os, "fsync", sync)
    assert (folder / LAST).is_file() and job.run(folder) == 0


def test_a_diverged_run_saves_no_number_that_is_not_finite(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = new(tmp_path, schedule__epochs="3", schedule__lr="1e6", schedule__warmup_epochs="0")
    line = ends(folder, capfd)
    assert "not finite at step" in line and "lower schedule.lr" in line
    files = [folder / name for name in (LAST, BEST) if (folder / name).is_file()]
    assert all(all_finite(torch.load(path, weights_only=True)) for path in files)
    assert ("last.pt holds an older step" in line) == bool(files)
    assert ("Nothing was saved" in line) == (not files)


def test_full_memory_comes_with_advice(tmp_path: Path, capfd, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of\n many words"
        )

    monkeypatch.setattr(job, "evaluate", full)
    line = ends(new(tmp_path), capfd)
    assert "Tried to allocate 2.00 GiB" in line and "many words" not in line
    assert all(word in line for word in ("accumulation_steps", "precision=bf16", "segments", "patch", "batch_size"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert "out of memory" in explain(error.value) and "\n" not in explain(error.value)


def test_a_defect_keeps_its_traceback(tmp_path: Path, monkeypatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise KeyError("weight")

    monkeypatch.setattr(job, "evaluate", wrong)
    with pytest.raises(KeyError):
        job.run(new(tmp_path))
    assert status(tmp_path)["state"] == "failed" and "KeyError" in status(tmp_path)["error"]
    assert "Traceback" in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "lower loader.workers"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "adafocus prepare check"),
        ("DataLoader timed out after 300 seconds", "loader.timeout"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...", "--shm-size"),
        ("Pin memory thread exited unexpectedly", "--shm-size"),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nTraceback:\nRuntimeError: no shared memory(shm)",
            "--shm-size",
        ),
    ],
)
def test_loader_processes_that_end_are_one_line_with_the_right_advice(said: str, advice: str) -> None:
    line = loader_trouble(RuntimeError(said))
    assert advice in line and "\n" not in line
    assert loader_trouble(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert loader_trouble(ValueError(said)) is None
