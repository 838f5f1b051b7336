"""Several processes: same scores, same losses, one run folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import runs


@pytest.mark.slow
def test_one_two_and_three_processes_give_the_same_score_and_losses(tmp_path: Path) -> None:
    # Frozen BatchNorm: its statistics are the only thing that depends on how a batch is shared.
    typed = runs.arguments(schedule__freeze_norm="true", schedule__batch_size="12", schedule__epochs="2")
    for devices in (1, 2, 3):
        runs.run(tmp_path, *typed, f"devices={devices}", f"name=d{devices}")
    one = tmp_path / "outputs/d1"
    for devices in (2, 3):
        other = tmp_path / f"outputs/d{devices}"
        for ours, theirs in zip(runs.lines(other), runs.lines(one), strict=True):
            assert ours["step"] == theirs["step"]
            if "loss" in ours:
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert [row["score"] for row in runs.summary(other)["rows"]] == [
            row["score"] for row in runs.summary(one)["rows"]
        ]
        assert runs.summary(other)["device"].startswith(f"{devices} x CPU")


@pytest.mark.slow
def test_accumulation_is_the_same_step(tmp_path: Path) -> None:
    typed = runs.arguments(schedule__freeze_norm="true", schedule__epochs="1")
    for parts in (1, 2):
        runs.run(tmp_path, *typed, f"schedule.accumulation_steps={parts}", f"name=a{parts}")
    one, two = (
        [line["loss"] for line in runs.lines(tmp_path / f"outputs/a{parts}") if "loss" in line] for parts in (1, 2)
    )
    assert len(one) == 6 and two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_torchrun_works_in_one_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(runs.ROOT / "run.py"),
        *runs.arguments(schedule__epochs="1"),
        "devices=2",
        "name=t",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=runs.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["t"]
    assert runs.summary(tmp_path / "outputs/t")["state"] == "finished"


@pytest.mark.slow
def test_a_rank_that_fails_takes_the_others_down_with_its_reason(tmp_path: Path) -> None:
    output = runs.run(tmp_path, *runs.arguments(schedule__lr="1e30"), "devices=2", "name=x", expect=2)
    assert "the loss is not finite at step" in output
    assert runs.run(tmp_path, *runs.arguments(schedule__lr="1e30"), "devices=2", "name=x", expect=2)
