"""Tests of `adafocus benchmark`: figures for every program, and `adafocus compare` shows the latency."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import cli, config
from adafocus.commands import benchmark
from adafocus.runs import job
from adafocus.runs.folder import describe


def test_figures_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    typed = ("evaluate.controls=false", "schedule.epochs=1", "method=uni_adafocus", "patch.smallest=8")
    settings = composed(*runs.arguments(), *typed)
    describe(tmp_path, config.to_dict(settings), overrides=[], choices={})
    assert job.run(tmp_path, settings) == 0
    assert cli.main(["benchmark", str(tmp_path), "--programs", "eager", "--rounds", "2", "--largest", "2"]) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["multiply_adds"] == runs.summary(tmp_path)["cost"]["total"] and found["threads"] >= 1
    first, folded = found["programs"][:2]
    assert first["program"] == "as trained" and folded["program"] == "BatchNorm folded"
    for row in found["programs"]:
        assert row["agreement"]["same_class"] == 1 and row["agreement"]["deviation"] < 1e-2
        assert row["latency_95"] >= row["latency"] > 0 and row["best_batch"] in (1, 2)
        assert row["throughput"] >= 0.99 / row["latency"]
        assert {"glance", "frame policy", "spatial policy", "focus", "head", "rest"} == set(row["parts"])
        assert row["parts"]["focus"] > 0
        assert row["peak_memory"] is None or row["peak_memory"] > 2**20
    assert first["agreement"]["deviation"] == 0 and "BatchNorm folded" in text
    assert cli.main(["compare", str(tmp_path)]) == 0
    fastest = min(row["latency"] for row in found["programs"])
    assert f"{1000 * fastest:.1f}" in capsys.readouterr().out
    assert cli.main(["benchmark", str(tmp_path), "--rounds", "0"]) == 2


def test_the_largest_batch_is_the_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, clips: torch.Tensor) -> torch.Tensor:
        if len(clips) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(len(clips), 3)

    class Predictor:
        device, program = (
            torch.device("cpu"),
            type("P", (), {"engine": "compile", "precision": "fp32", "fold_norm": False}),
        )

    monkeypatch.setattr(benchmark, "logits_of", run)
    monkeypatch.setattr(benchmark, "AGREEMENT_CLIPS", 2)
    options = type("Options", (), {"largest": 64, "rounds": 3})
    found = benchmark._measured(Predictor, torch.zeros(64, 1), torch.ones(2, 3), options)
    assert found["best_batch"] in (1, 2) and found["agreement"]["same_class"] == 1 and found["parts"] is None
