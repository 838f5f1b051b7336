"""Sweeps: jobs that fail take nothing along, the same command continues, the comparison is always up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import runs


@pytest.mark.slow
def test_a_failing_job_and_the_same_command_again(tmp_path: Path) -> None:
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("patch")]
    typed = ["-m", "patch=24,28", "seed=0,1", *small, "dataset.frame_size=26", "name=s"]
    output = runs.run(tmp_path, *typed, expect=1)
    folder = tmp_path / "multirun/s"
    names = [f"patch={patch},seed={seed}" for patch in (24, 28) for seed in (0, 1)]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    states = {name: json.loads((folder / name / "status.json").read_text())["state"] for name in names}
    assert list(states.values()) == ["finished", "finished", "failed", "failed"]
    assert (
        "failed: " in output and "patch.size=28 is larger than the frame of 26" in (folder / "compare.md").read_text()
    )
    written = (folder / names[0] / "metrics.jsonl").stat().st_mtime_ns
    again = runs.run(tmp_path, *typed, expect=1)
    assert "this run is finished" in again
    assert (folder / names[0] / "metrics.jsonl").stat().st_mtime_ns == written
    rows = (folder / "compare.csv").read_text().splitlines()
    assert rows[0].startswith("variant,score_mean,score_std,seeds") and rows[1].split(",")[3] == "2"


@pytest.mark.slow
def test_a_job_that_is_killed_is_listed_and_the_next_one_runs(tmp_path: Path) -> None:
    # A size that the process may not allocate stands for a device that is out of memory.
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("dataset.train")]
    typed = ["-m", "dataset.train_videos=9999999999999,48", *small, "name=s"]
    output = runs.run(tmp_path, *typed, expect=1)
    folder = tmp_path / "multirun/s"
    bad, good = folder / "dataset.train_videos=9999999999999", folder / "dataset.train_videos=48"
    assert json.loads((bad / "status.json").read_text())["state"] == "failed"
    assert runs.summary(good)["state"] == "finished"
    assert f"failed: {bad}" in output and "dataset.train_videos" in (folder / "compare.md").read_text()
