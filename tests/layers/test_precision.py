"""Tests that a small run trains with every precision, with channels-last layout and compiled, on CPU and GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import runs


@pytest.mark.slow
@pytest.mark.parametrize("typed", [["precision=bf16", "channels_last=true"], ["precision=fp16"]])
def test_mixed_precision_trains(tmp_path: Path, typed: list[str]) -> None:
    runs.run(tmp_path, *runs.arguments(schedule__epochs="1"), *typed, "name=p")
    losses = [line["loss"] for line in runs.lines(tmp_path / "outputs/p") if "loss" in line]
    runs.run(tmp_path, *runs.arguments(schedule__epochs="1"), "name=full")
    full = [line["loss"] for line in runs.lines(tmp_path / "outputs/full") if "loss" in line]
    assert losses[0] == pytest.approx(full[0], rel=0.02) and losses != full


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "typed", [["precision=fp32"], ["precision=bf16", "channels_last=true"], ["precision=fp16"], ["compile=true"]]
)
def test_a_gpu_trains_and_scores_like_the_cpu(tmp_path: Path, typed: list[str]) -> None:
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("device=")]
    runs.run(tmp_path, *small, *typed, "device=cuda", "name=gpu")
    runs.run(tmp_path, *small, "device=cpu", "name=cpu")
    gpu, cpu = (
        [line["loss"] for line in runs.lines(tmp_path / f"outputs/{name}") if "loss" in line] for name in ("gpu", "cpu")
    )
    assert gpu[0] == pytest.approx(cpu[0], rel=0.02)
    assert "CUDA" not in runs.summary(tmp_path / "outputs/cpu")["device"]
