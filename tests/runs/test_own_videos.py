"""Tests of the commands on a folder of videos, run in this process, and of the files that they write."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from helpers import numbered

from adafocus import cli

SMALL = [
    "dataset=folder",
    "method=recognizer",
    "backbone=tiny",
    "backbone.focus_channels=[8,8]",
    "segments.glance=2",
    "dataset.frame_size=32",
    "schedule.epochs=1",
    "schedule.batch_size=4",
    "schedule.base_batch_size=4",
    "loader.workers=0",
    "device=cpu",
    "inline=true",
    "output.loggers=[]",
    "evaluate.examples=0",
]


def people(root: Path, classes: str = "ab", persons: str = "xyz") -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for person in persons:
            for number in range(2):
                numbered.write(root / name / f"{person}_{number}.mp4", 5, size=(32, 48))
    return root


def test_from_class_folders_to_a_score_on_every_clip_of_others(tmp_path: Path, monkeypatch, capfd) -> None:
    root = people(tmp_path / "own")
    odd = os.fsencode(root / "a") + b"/x_caf\xe9.mp4"  # a name that is not UTF-8, which a video may have
    os.rename(root / "a/x_0.mp4", odd)
    (root / "b/z_9.mp4").write_text("<html>")
    monkeypatch.chdir(tmp_path)
    run = [*SMALL, f"dataset.root={root}", "dataset.group='^(.)_'", "dataset.max_bad_fraction=0.5", "name=r"]
    assert cli.run(run) == 0, capfd.readouterr().err
    printed = capfd.readouterr().err
    assert "unreadable video in" in printed and "b/z_9.mp4" in printed
    rows = list(csv.DictReader((tmp_path / "outputs/r/split.csv").open(encoding="utf-8", errors="surrogateescape")))
    sides = {row["group"]: {other["split"] for other in rows if other["group"] == row["group"]} for row in rows}
    assert sorted(sides) == ["x", "y", "z"] and all(len(side) == 1 for side in sides.values())
    data = json.loads((tmp_path / "outputs/r/data.json").read_text())
    assert data["classes"] == ["a", "b"] and sum(map(sum, (part.values() for part in data["clips"].values()))) == 13
    summary = json.loads((tmp_path / "outputs/r/summary.json").read_text())
    assert {path for files in summary["unreadable"].values() for path in files} == {"b/z_9.mp4"}
    typed = [
        "mode=early_exit",
        "checkpoint=outputs/r",
        "inline=true",
        "device=cpu",
        "method=adafocus_v2",
        "patch.size=16",
    ]
    people(tmp_path / "only/val")
    assert cli.run([*typed, f"dataset.root={tmp_path / 'only'}", "name=x"]) == 2
    assert "takes its thresholds from training videos" in capfd.readouterr().err

    others = people(tmp_path / "others", classes="b", persons="uvw")
    people(tmp_path / "others2", classes="ba", persons="u")
    common = ["mode=evaluate", "checkpoint=outputs/r", "device=cpu", "loader.workers=0", "inline=true"]
    for name, folder, clips in (("e", others, 6), ("f", tmp_path / "others2", 4)):  # videos of one class, and of both
        assert cli.run([*common, f"dataset.root={folder}", f"name={name}"]) == 0
        found = json.loads((tmp_path / f"outputs/{name}/summary.json").read_text())
        assert found["data"]["evaluate"]["found"] == clips and "train" not in found["data"]
    assert json.loads((tmp_path / "outputs/e/data.json").read_text())["found"]["evaluate"]["labels"] == [1, 1]
    assert cli.run([*common, "name=g"]) == 0  # on the data of the run: the same hold-out again
    again = json.loads((tmp_path / "outputs/g/summary.json").read_text())
    assert again["rows"] == summary["rows"]
    assert again["data"]["evaluate"]["listed"] == summary["data"]["evaluate"]["listed"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["dataset.folds=3"], "needs the fold for validation"),
        (["dataset.fold=1"], "needs the number of folds"),
        (["dataset.folds=3", "dataset.fold=3"], "does not exist; of dataset.folds=3 choose 0,1,2"),
        (["dataset.folds=1", "dataset.fold=0"], "between 2 and 100"),
    ],
)
def test_folds_are_typed_completely(typed: list[str], says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([*SMALL, "dataset.root=.", *typed]) == 2
    assert says in capsys.readouterr().err and not list(tmp_path.rglob("config.json"))
