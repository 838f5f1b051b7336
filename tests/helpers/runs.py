"""Helpers that start small real runs, in the process of the test or in processes of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from adafocus import cli

ROOT = Path(__file__).resolve().parents[2]
#: Overrides of a run of a few seconds; tests add to them or replace them.
SMALL = {
    "dataset.train_videos": "48",
    "dataset.val_videos": "13",
    "dataset.frame_size": "32",
    "dataset.glyph_size": "8",
    "patch.size": "16",
    "schedule.epochs": "3",
    "schedule.batch_size": "8",
    "schedule.base_batch_size": "8",
    "schedule.evaluate_every": "1",
    "loader.workers": "0",
    "output.log_every": "1",
    "output.loggers": "[]",
    "device": "cpu",
}


def arguments(**changes: str) -> list[str]:
    """Overrides of the small run, with changes; a keyword `a__b` stands for the key `a.b`."""
    merged = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    if merged.get("method") in ("recognizer", "tokens"):  # they have no patches, and a key without effect is refused
        merged.pop("patch.size")
    return [f"{key}={value}" for key, value in merged.items()]


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(cwd: Path, *typed: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run.py"), *typed]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own, to which a test can send signals
    )


def run(cwd: Path, *typed: str, expect: int = 0) -> str:
    """Runs a command to its end in this process and returns its output.

    In processes of its own (`apart`) it takes about six seconds of processor time more, most of them for imports.
    """
    before, argv, said = Path.cwd(), sys.argv, io.StringIO()
    os.chdir(cwd)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            code = cli.run([*typed, "inline=true"])
    finally:
        os.chdir(before)
        sys.argv = argv
    assert code == expect, said.getvalue()
    return said.getvalue()


def apart(cwd: Path, *typed: str, expect: int = 0) -> str:
    """Runs a command to its end in processes of its own, as from a command line, and returns its output."""
    process = start(cwd, *typed)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expect, output
    return output


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def same(folder: Path, reference: Path) -> None:
    """Asserts that two runs have equal metrics, bit-identical weights and equal scores."""
    assert lines(folder) == lines(reference)
    ours, theirs = (torch.load(place / "last.pt", weights_only=True)["model"] for place in (folder, reference))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert summary(folder)["rows"] == summary(reference)["rows"]
