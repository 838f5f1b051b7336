"""The table of examples/evidence.py, from finished runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.configs import composed

from adafocus import config
from adafocus.runs.predictions import write_predictions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def evidence():
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "examples/evidence.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["evidence"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def finished(folder: Path, rows: dict[str, tuple[int, list[int]]]) -> None:
    """A finished run whose rows have a cost and the guessed classes of four videos, all of class 0."""
    folder.mkdir(parents=True)
    summary = [{"name": name, "score": 0.0, "cost": cost} for name, (cost, _) in rows.items()]
    (folder / "summary.json").write_text(json.dumps({"rows": summary}))
    logits = {name: torch.eye(2)[torch.tensor(guess)] for name, (_, guess) in rows.items()}
    write_predictions(folder, ["a", "b", "c", "d"], ["x", "y"], torch.zeros(4, 1, dtype=torch.int64), logits, {})


def test_the_table_has_what_finished_runs_found(tmp_path: Path, evidence) -> None:
    out = tmp_path / "yoga"
    for seed in (0, 1):
        finished(out / f"whole_change_seed{seed}", {"whole frames": (100, [0, 1, 1, 1])})
    finished(out / "motion_seed0", {"learned patch": (110, [0, 0, 0, 1]), "constant patch": (90, [1, 1, 0, 1])})
    found = evidence.table(out, evidence.networks(evidence.SETS["yoga"]), 2)
    assert [len(result.right) for result in found.values()] == [2, 1, 1]
    options = argparse.Namespace(out=tmp_path, set="yoga", epochs=3, seeds=2)
    evidence.write(options, found)
    rows = {row["name"]: row for row in json.loads((out / "evidence.json").read_text())["rows"]}
    assert rows["whole_change: whole frames"]["seeds"] == [25.0, 25.0]
    learned = rows["motion: learned patch"]
    assert learned["score"]["mean"] == 75.0 and learned["ahead"]["mean"] == 50.0 and learned["cost"] == 110
    assert rows["motion: constant patch"]["score"]["mean"] == 25.0
    assert "| motion: learned patch | 1 | 75.0 (" in (out / "evidence.md").read_text()


def test_all_its_configurations_compose(evidence, tmp_path: Path) -> None:
    for videos in evidence.SETS.values():
        shared = evidence.common(tmp_path, tmp_path / "weights.safetensors", videos, 3)
        for own in evidence.networks(videos).values():
            assert config.to_dict(composed(*shared, *own))["schedule"]["epochs"] == 3
