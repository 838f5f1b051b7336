"""Tests that run the programs in examples/."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import numbered, runs
from helpers.configs import composed

from adafocus import build, config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    typed = ("method=uni_adafocus", "segments.glance=2", "segments.focus=3", "dataset.decode_short_side=null")
    settings = composed("dataset=folder", f"dataset.root={folder}", *typed)
    content = {
        "model": build.model(settings, 2).state_dict(),
        "config": config.to_dict(settings),
        "classes": ["a", "b"],
    }
    torch.save(content, folder / "last.pt")
    numbered.write(folder / "one.mp4", 20)
    numbered.write(folder / "two.mp4", 30)
    (folder / "page.mp4").write_text("<html>")
    return folder


def example(name: str, *arguments: Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True).stdout


def test_look(run: Path) -> None:
    printed = example("look.py", run / "last.pt", run / "one.mp4", run / "looked.png")
    assert printed.count("%") == 2 and printed.count("pixels at row") == 3 and "multiply-adds" in printed
    assert (run / "looked.png").stat().st_size > 1000


def test_folder_of_videos(run: Path) -> None:
    example("folder_of_videos.py", run / "last.pt", run, run / "labels.csv")
    with open(run / "labels.csv") as file:
        table = list(csv.DictReader(file))
    assert [Path(row["video"]).name for row in table] == ["one.mp4", "page.mp4", "two.mp4"]
    assert table[0]["label"] in "ab" and not table[1]["label"] and "page.mp4" in table[1]["error"]


def test_train_in_python(tmp_path: Path) -> None:
    """examples/train_in_python.py trains its network; started again, it finds the finished run and does nothing."""
    text = (ROOT / "examples" / "train_in_python.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) < 60 and "hydra" not in text
    example("train_in_python.py", tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["top1"] == 100.0
    example("train_in_python.py", tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines
