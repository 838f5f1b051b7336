"""Tests of hold-outs: the choice is stable across versions, a group is on one side, and folds cover every video
once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from adafocus.core.errors import UserError
from adafocus.data.annotations import Record, Split
from adafocus.data.folders import class_folders, folder_split
from adafocus.data.hold_out import fold_out, groups_of, hold_out, straddling


def split(records: list[Record]) -> Split:
    return Split(records, len(records))


def paths(part: Split) -> list[str]:
    return [record.path for record in part.records]


def test_the_held_out_fifth_is_the_one_of_older_runs(tmp_path: Path) -> None:
    """The held-out videos are those that version 0.1 chose, so that an older run continues with the same videos."""
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.mp4").touch()
    found = class_folders(tmp_path)
    assert found.classes == ["run", "walk"]
    train, val = hold_out(folder_split(tmp_path, found, found.classes), 0.2)
    assert paths(val) == GOLDEN and len(train.records) == 16 and paths(train) == sorted(paths(train))


GOLDEN = ["run/2.mp4", "run/3.mp4", "walk/4.mp4", "walk/5.mp4"]


def people(per_person: int = 3) -> list[Record]:
    """Videos of twelve people, each of whom appears in two of four classes."""
    return [
        Record(f"{label}/p{person:02d}_{number}.mp4", (label,))
        for person in range(12)
        for label in (person % 4, (person + 1) % 4)
        for number in range(per_person)
    ]


def test_a_group_is_on_one_side_and_classes_keep_their_share() -> None:
    records = people()
    groups, remark = groups_of(split(records), r"(p\d+)_", [], None)
    assert not remark and len(set(groups)) == 12
    by_path = dict(zip([record.path for record in records], groups, strict=True))
    train, val = hold_out(split(records), 0.2, groups)
    assert not straddling({"train": [by_path[p] for p in paths(train)], "val": [by_path[p] for p in paths(val)]})
    assert sorted(paths(train) + paths(val)) == sorted(by_path)
    assert Counter(record.labels[0] for record in val.records).keys() == {0, 1, 2, 3}
    assert 0.15 <= len(val.records) / len(records) <= 0.3
    assert paths(hold_out(split(records[::-1]), 0.2, groups[::-1])[1]) == paths(val)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_cover_every_video_once_with_even_classes(grouped: bool) -> None:
    records = people()
    groups = groups_of(split(records), r"(p\d+)_", [], None)[0] if grouped else None
    seen: list[str] = []
    for fold in range(4):
        train, val = fold_out(split(records), 4, fold, groups)
        assert not set(paths(train)) & set(paths(val)) and len(train.records) + len(val.records) == len(records)
        assert len(val.records) == len(records) // 4
        seen += paths(val)
        counts = Counter(record.labels[0] for record in val.records)
        assert len(counts) == 4 and (grouped or max(counts.values()) - min(counts.values()) <= 1)
    assert sorted(seen) == sorted(record.path for record in records)


def test_uneven_groups_are_shared_well() -> None:
    rng = np.random.default_rng(0)
    records, groups = [], []
    for scene in range(40):
        for number in range(int(rng.integers(1, 12))):
            records.append(Record(f"{scene}_{number}.mp4", (int(rng.random() < 0.3 + 0.01 * scene),)))
            groups.append(str(scene))
    for fold in range(5):
        _, val = fold_out(split(records), 5, fold, groups)
        for label in (0, 1):
            every = sum(record.labels == (label,) for record in records)
            part = sum(record.labels == (label,) for record in val.records)
            assert 0.17 <= part / every <= 0.23


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("scene", "must be a column \\(path, label\\), `parent`, or a regular expression with one group"),
        ("(a", "or a regular expression \\("),
        ("(a)(b)", "one group"),
        ("(zebra)", "matches no video"),
        ("parent", "the groups equal the classes"),
    ],
)
def test_groups_that_say_nothing_are_refused(by: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        groups_of(split(people()), by, ["path", "label"], None)


def test_the_parent_is_the_folder_below_the_class() -> None:
    records = [
        Record(path, (n % 2,)) for n, path in enumerate(["a/anna/1/x.mp4", "b/anna/x.mp4", "a/ben/x.mp4", "b/x.mp4"])
    ]
    groups, remark = groups_of(split(records), "parent", [], ["."])
    assert groups[:3] == ["anna", "anna", "ben"] and "does not apply to 1 videos" in remark and "b/x.mp4" in remark
    below = [Record(f"train/{record.path}", record.labels) for record in records]
    assert groups_of(split(below), "parent", [], ["train"])[0][:3] == ["anna", "anna", "ben"]


def test_more_folds_than_videos_are_refused() -> None:
    with pytest.raises(UserError, match="only 72 videos"):
        fold_out(split(people()), 73, 0)
    with pytest.raises(UserError, match="only 1 groups"):
        fold_out(split(people()), 2, 0, ["x"] * 72)
