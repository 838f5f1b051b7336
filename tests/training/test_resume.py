"""Tests that a run that is killed and continued ends with the same bits as an uninterrupted run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from helpers import runs


def kill_when(folder: Path, process, steps: int) -> None:
    """Sends SIGKILL to the launcher as soon as metrics.jsonl has `lines` lines; its child process notices and ends."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= steps:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)  # has no effect if the process has just ended by itself
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_two_interruptions_change_no_bit(tmp_path: Path, workers: str) -> None:
    typed = runs.arguments(loader__workers=workers, output__save_seconds="0")
    runs.run(tmp_path, *typed, "name=whole")
    for steps in (4, 11):
        process = runs.start(tmp_path, *typed, "name=cut")
        kill_when(tmp_path / "outputs/cut", process, steps)
        time.sleep(0.5)  # the child process needs a moment to notice
    assert not (tmp_path / "outputs/cut/summary.json").exists()
    output = runs.run(tmp_path, *typed, "name=cut")
    assert "continuing from step" in output
    runs.same(tmp_path / "outputs/cut", tmp_path / "outputs/whole")
    assert "finished" in runs.run(tmp_path, *typed, "name=cut")


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    typed = runs.arguments(output__save_seconds="0")
    runs.run(tmp_path, *typed, "name=whole")
    folder, rng = tmp_path / "outputs/cut", random.Random()
    for _ in range(3):
        process = runs.start(tmp_path, *typed, "name=cut")
        # Kills lie anywhere between the start and the final evaluation, also in the middle of a save.
        kill_when(folder, process, rng.randrange(1, 24))
        time.sleep(0.5)
    runs.run(tmp_path, *typed, "name=cut")
    runs.same(folder, tmp_path / "outputs/whole")


@pytest.mark.slow
def test_another_configuration_is_refused(tmp_path: Path) -> None:
    runs.run(tmp_path, *runs.arguments(schedule__epochs="1"), "name=one")
    output = runs.run(tmp_path, *runs.arguments(schedule__epochs="2"), "name=one", expect=2)
    assert "holds a run of another configuration (it differs in schedule.epochs)" in output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_half_written_checkpoint_is_never_met(tmp_path: Path) -> None:
    typed = runs.arguments(schedule__epochs="1", output__save_seconds="0")
    runs.run(tmp_path, *typed, "name=whole")
    folder = tmp_path / "outputs/whole"
    (folder / "last.pt.part").write_bytes(b"torn")
    (folder / "summary.json").unlink()
    runs.run(tmp_path, *typed, "name=whole")
    assert runs.summary(folder)["state"] == "finished"
    (folder / "config.json").write_bytes(b'{"dataset": {')  # the checkpoint holds the configuration as well
    assert "this run is finished" in runs.run(tmp_path, *typed, "name=whole")
