"""Tests of examples/plugin with every command, each in a process of its own, and that no stored file imports it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import numbered, runs

from adafocus import cli

PLUGIN = "examples.plugin"
TYPED = [
    f"plugins=[{PLUGIN}]",
    "dataset=stripes",
    "dataset.options.videos=32",
    "backbone=shuffle",
    "device=cpu",
    "loader.workers=0",
    "schedule.epochs=1",
    "schedule.batch_size=4",
    "evaluate.controls=false",
]


def adafocus(cwd: Path, *arguments: object, expect: int = 0) -> str:
    command = [sys.executable, "-m", "adafocus", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=runs.environment(), capture_output=True, text=True)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def interrupted(cwd: Path, *typed: str, folder: Path) -> None:
    """A training run of the plug-in that got SIGINT after its first step."""
    process = runs.start(cwd, *typed)
    while not (folder / "metrics.jsonl").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 130, printed


@pytest.mark.slow
def test_a_plugin_goes_all_the_way(tmp_path: Path, capsys, monkeypatch) -> None:
    run = tmp_path / "outputs" / "fixed"
    typed = [*TYPED, "method=fixed_place", "name=fixed", "output.loggers=[last_line]", "output.log_every=1"]
    interrupted(tmp_path, *typed, folder=run)
    assert "continuing from step" in runs.apart(tmp_path, *typed)
    assert (run / "last_line.txt").read_text().startswith("step 8: top1")
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["config"]["plugins"] == [PLUGIN] and "policy.corner" in state["model"]

    small = ["dataset.options.videos=8", "method=adafocus_v2", "output.loggers=[]", "name=both"]
    printed = runs.apart(tmp_path, "-m", *TYPED, *small, "policy.name=paper,warmest")
    assert "job 2 of 2" in printed and (tmp_path / "multirun/both/compare.md").is_file()
    warm = torch.load(tmp_path / "multirun/both/policy.name-warmest/last.pt", weights_only=True)
    assert "policy.score.weight" in warm["model"]

    early = ["mode=early_exit", "early_exit.budgets=[1]", "device=cpu", "loader.workers=0", "name=early"]
    runs.apart(tmp_path, f"plugins=[{PLUGIN}]", f"checkpoint={run}", *early)
    assert (tmp_path / "outputs/early/early_exit.csv").is_file()

    numbered.write(tmp_path / "one.mp4", 12)
    assert "horizontal" in adafocus(tmp_path, "predict", run, "one.mp4", "--plugins", PLUGIN)
    adafocus(tmp_path, "export", run, "--plugins", PLUGIN, "--out", "programs")
    assert json.loads((tmp_path / "programs/export.json").read_text())["classes"] == ["horizontal", "vertical"]
    _is_refused_without_its_plugin(tmp_path, run, capsys, monkeypatch)


def _is_refused_without_its_plugin(cwd: Path, run: Path, capsys, monkeypatch) -> None:
    """Checks that a process that has not imported the plug-in refuses to load the run."""
    monkeypatch.chdir(cwd)
    assert PLUGIN not in sys.modules
    for command in (
        ["predict", str(run), "one.mp4"],
        ["export", str(run)],
        ["convert", str(run), "out.safetensors"],
        ["predict", str(run / "last.pt"), "one.mp4"],
        ["run", "mode=evaluate", f"checkpoint={run}"],
        ["run", "mode=evaluate", f"checkpoint={run / 'last.pt'}"],
    ):
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert f"plugins=[{PLUGIN}]" in said and f"--plugins {PLUGIN}" in said
    assert PLUGIN not in sys.modules
