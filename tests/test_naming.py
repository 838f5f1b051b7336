from __future__ import annotations

import json
from pathlib import Path

import pytest

from adafocus.naming import folder_name, inherit, quote_numbers, shared_keys


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("patch=128", "patch='128'"),
        ("patch=96,128,160", "patch='96','128','160'"),
        ("segments=8,8+12,16+16", "segments='8',8+12,16+16"),
        ("stage=2", "stage='2'"),
        ("stage=joint", "stage=joint"),
        ("patch='128'", "patch='128'"),
        ("patch.size=128", "patch.size=128"),
        ("seed=1,2", "seed=1,2"),
        ("patch=choice(96,128)", "patch=choice('96','128')"),
        ("-m", "-m"),
    ],
)
def test_numeric_choices_are_quoted(typed: str, read: str) -> None:
    assert quote_numbers([typed]) == [read]


def test_folders_are_named_by_what_differs() -> None:
    assert folder_name(["patch='128'", "dataset=sthv2", "devices=4", "loader.workers=0"]) == "dataset=sthv2,patch=128"
    assert folder_name([]) == "default"
    assert folder_name(["a=1", "b=2"]) == folder_name(["b=2", "a=1"])


def test_paths_in_names_are_short_and_distinct() -> None:
    one, two = folder_name(["dataset.root=/a/videos"]), folder_name(["dataset.root=/b/videos"])
    assert one.startswith("dataset.root=videos-") and one != two and "/" not in one


def test_long_names_are_cut_but_differ() -> None:
    names = {folder_name([f"key{i}={'x' * 30}" for i in range(8)] + [f"seed={seed}"]) for seed in (1, 2)}
    assert len(names) == 2 and all(len(name) <= 120 for name in names)


def test_only_swept_keys_tell_jobs_apart() -> None:
    assert shared_keys(["patch='96','128'", "seed=1", "schedule.lr_mults={a:1,b:2}", "x=range(1,4)"]) == [
        "seed",
        "schedule.lr_mults",
    ]


def test_evaluating_a_run_takes_its_choices_and_the_new_ones_win(tmp_path: Path) -> None:
    (tmp_path / "overrides.json").write_text(json.dumps(["patch='96'", "dataset.root=/x", "devices=2", "name=a"]))
    typed = ["mode=evaluate", f"checkpoint={tmp_path}", "dataset.root=/y"]
    assert inherit(typed) == ["patch='96'", *typed]
    assert inherit(["mode=evaluate", "checkpoint=/nowhere"]) == ["mode=evaluate", "checkpoint=/nowhere"]


def test_a_choice_that_all_jobs_share_does_not_hide_its_keys() -> None:
    """`-m dataset=folder dataset.fold=0,1`: the jobs differ in a key of the group that they share."""
    names = {folder_name(["dataset=folder", f"dataset.fold={fold}"], without=["dataset"]) for fold in (0, 1)}
    assert len(names) == 2
