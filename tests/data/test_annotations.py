from __future__ import annotations

from pathlib import Path

import pytest

from adafocus.core.errors import UserError
from adafocus.data import annotations
from adafocus.data.annotations import Record


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_blank_separated_paths_may_hold_blanks(tmp_path: Path) -> None:
    split = annotations.read_list(write(tmp_path / "a.txt", "riding a bike/v 1 30 2", "x 2 0"), 3, min_frames=3)
    assert split.records == [Record("riding a bike/v 1", (2,), 30)]
    assert (split.listed, split.too_short) == (2, 1)


def test_comma_lists_hold_up_to_three_labels_in_order(tmp_path: Path) -> None:
    split = annotations.read_list(write(tmp_path / "a.txt", "v_1,300,7,2,7", "v_2,10,1"), 8, separator=",")
    assert [record.labels for record in split.records] == [(2, 7), (1,)]


@pytest.mark.parametrize(
    ("row", "separator", "says"),
    [
        ("a 10 3", " ", "line 2: label 3 is out of range"),
        ("a 10 -1", " ", "line 2: label -1 is out of range"),
        ("a ten 0", " ", "line 2: cannot read"),
        ("a", " ", "line 2: cannot read"),
        ("a,10,0,1,2,0", ",", ""),
        ("a,10,,", ",", "line 2: cannot read"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, separator: str, says: str) -> None:
    path = write(tmp_path / "a.txt", f"good{separator}10{separator}0", row)
    if not says:
        assert len(annotations.read_list(path, 3, separator=separator).records) == 2
        return
    with pytest.raises(UserError, match=says):
        annotations.read_list(path, 3, separator=separator)


def test_four_labels_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 labels"):
        annotations.read_list(write(tmp_path / "a.txt", "a,10,0,1,2,3"), 8, separator=",")


def test_a_blank_last_line_is_no_class(tmp_path: Path) -> None:
    assert annotations.read_classes(write(tmp_path / "c.txt", "walk", "run", "", "")) == ["walk", "run"]


@pytest.mark.parametrize(
    ("names", "says"),
    [(["a", "b", "a"], "line 3: 'a' is already the class of line 1"), (["a", "", "b"], "line 2: the name is empty")],
)
def test_classes_without_a_name_of_their_own_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        annotations.read_classes(write(tmp_path / "c.txt", *names))


def test_missing_videos_are_dropped_in_training_and_kept_in_evaluation(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    (tmp_path / "broken.mp4").touch()
    path = write(tmp_path / "a.txt", "there.mp4 9 0", "gone.mp4 9 0", "broken.mp4 9 1")
    found = {}
    for keep in (False, True):
        split = annotations.read_list(path, 2)
        found[keep] = annotations.look_up(split, tmp_path, bad_list=frozenset({"broken.mp4"}), keep_missing=keep)
        assert found[keep].summary() == {
            "listed": 3,
            "expected": None,
            "found": 1,
            "missing": 1,
            "too_short": 0,
            "unreadable": 1,
            "labels": [0, 0 if not keep else 1],
        }
    assert [record.path for record in found[False].records] == ["there.mp4"]
    assert len(found[True].records) == 3


def test_flip_pairs_are_resolved_by_name() -> None:
    classes = ["up", "to left", "to right"]
    assert annotations.resolve_flip_pairs([["to left", "to right"]], classes) == {1: 2, 2: 1}
    with pytest.raises(UserError, match="to the left"):
        annotations.resolve_flip_pairs([["to the left", "up"]], classes)
