"""Tests of dataset=folder: the layouts that are accepted, those that are refused, and the messages about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adafocus.core.errors import UserError
from adafocus.data.collect import Collected, Demands, Division, Trained, collect, write_division
from adafocus.data.splits import Where


def make(root: Path, *names: str) -> None:
    """Makes these files with contents of different sizes."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(number + 1))


def folders(root: Path, *below: str, classes: str = "ab", count: int = 4) -> None:
    for folder in below:
        for name in classes:
            make(root, *(f"./{folder}/{name}/{folder or 'x'}{number}.mp4" for number in range(count)))


def found(root: Path, *, division: Division | None = None, evaluation: bool = False, **changes) -> Collected:
    trained = changes.pop("trained", None)
    where = Where(root, root, **changes)
    demands = Demands(inspect=False)
    return collect(where, division or Division(), demands, trained=trained, evaluation=evaluation)


def sizes(collected: Collected) -> dict[str, int]:
    return {name: len(split.records) for name, split in collected.splits.items()}


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "VAL"])
def test_train_and_validation_in_any_case(tmp_path: Path, val: str) -> None:
    folders(tmp_path, "Train", val)
    data = found(tmp_path)
    assert sizes(data) == {"train": 8, "evaluate": 8} and data.classes == ["a", "b"] and not data.division


def test_test_videos_are_for_the_end_and_validation_for_training(tmp_path: Path) -> None:
    folders(tmp_path, "train", "valid", "test")
    data = found(tmp_path)
    assert sizes(data) == {"train": 8, "evaluate": 8, "validate": 8}
    assert {record.path[:4] for record in data.splits["evaluate"].records} == {"test"}
    assert {record.path[:5] for record in found(tmp_path, evaluation=True).splits["evaluate"].records} == {"test/"}


def test_without_validation_a_part_of_train_is_held_out(tmp_path: Path) -> None:
    folders(tmp_path, "train", "test", count=10)
    data = found(tmp_path)
    assert sizes(data) == {"train": 16, "evaluate": 20, "validate": 4} and len(data.division) == 40
    assert {row[3] for row in data.division} == {"train", "val", "test"}
    assert not {r.path for r in data.splits["train"].records} & {r.path for r in data.splits["validate"].records}


AMBIGUOUS = {
    "only val": (["val/a/1.mp4", "val/b/1.mp4"], "holds val but no folder train"),
    "only test": (["test/a/1.mp4", "test/b/1.mp4"], "holds test but no folder train"),
    "two of one": (["train/a/1.mp4", "val/a/1.mp4", "valid/a/1.mp4"], "val and valid, both of which are val"),
    "classes beside splits": (["train/a/1.mp4", "test/a/1.mp4", "walk/1.mp4"], "also walk: it is not clear"),
    "no classes": (["train/1.mp4", "test/2.mp4"], "train holds videos but no class folders"),
    "one class": (["a/1.mp4", "a/2.mp4"], "found 1 classes"),
    "two tables": (["one.csv", "two.csv"], "several tables of videos (one.csv, two.csv)"),
    "list of validation only": (["a/1.mp4", "b/1.mp4", "val.txt"], "val.txt but no training list"),
    "class of test only": (
        ["train/a/1.mp4", "train/b/1.mp4", "test/c/1.mp4"],
        "has classes that the training set does not have: ['c']",
    ),
    "junk only": (["a/notes.txt", "b/._x.mp4", "__MACOSX/c/1.mp4"], "found 0 classes"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_ambiguous_is_one_line(tmp_path: Path, case: str) -> None:
    names, says = AMBIGUOUS[case]
    make(tmp_path, *names)
    for table in tmp_path.glob("*.csv"):
        table.write_text("path,label\na/1.mp4,a\n")
    with pytest.raises(UserError) as error:
        found(tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_never_a_network_of_train_and_test(tmp_path: Path) -> None:
    folders(tmp_path, "train", "test")
    assert found(tmp_path).classes == ["a", "b"]


def test_an_evaluation_of_another_folder_takes_every_video(tmp_path: Path) -> None:
    folders(tmp_path, "", classes="bc", count=5)
    own = Trained(["c", "b", "a"], same=True)
    other = Trained(["c", "b", "a"], same=False, seen=frozenset({"b/x0.mp4"}))
    assert sizes(found(tmp_path, evaluation=True, trained=own)) == {"evaluate": 2}
    data = found(tmp_path, evaluation=True, trained=other)
    assert sizes(data) == {"evaluate": 10} and data.classes == ["c", "b", "a"]
    assert {(record.path[0], record.labels) for record in data.splits["evaluate"].records} == {("b", (1,)), ("c", (0,))}
    assert any("all its videos are evaluated" in note for note in data.notes)
    assert any("1 of 10 evaluated videos have the path of a training video" in note for note in data.notes)
    with pytest.raises(UserError, match="classes that the checkpoint does not have: \\['b'\\]"):
        found(tmp_path, evaluation=True, trained=Trained(["c", "a"], same=False))


def test_evaluation_needs_nothing_of_the_training_set(tmp_path: Path) -> None:
    make(tmp_path, "v/1.mp4", "v/2.mp4")
    (tmp_path / "val.txt").write_text("v/1.mp4 9 0\nv/2.mp4 9 1\n")
    assert sizes(found(tmp_path, evaluation=True, val_list="val.txt", train_list="gone.txt", classes=2)) == {
        "evaluate": 2
    }
    assert found(tmp_path, evaluation=True, trained=Trained(["a", "b"])).classes == ["a", "b"]
    folders(tmp_path / "f", "val")
    (tmp_path / "f/train/c").mkdir(parents=True)
    assert found(tmp_path / "f", evaluation=True).classes == ["a", "b"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_says_label_group_and_split(tmp_path: Path, separator: str) -> None:
    names = [f"{number}.mp4" for number in range(8)]
    make(tmp_path, *names)
    rows = [
        f'"{n}",{"walk" if i % 2 else "run"},s{i // 4},{"Train" if i < 4 else "valid"}' for i, n in enumerate(names)
    ]
    text = "\n".join(["Path,label,scene,split", *rows]).replace(",", separator)
    (tmp_path / "clips.csv").write_bytes(text.encode("utf-8-sig"))
    data = found(tmp_path, group="scene", division=Division(group="scene"))
    assert sizes(data) == {"train": 4, "evaluate": 4} and data.classes == ["run", "walk"]
    assert data.notes == [f"videos and labels are those of {tmp_path / 'clips.csv'}"]
    assert data.splits["train"].records[1].labels == (1,) and data.splits["evaluate"].records[0].group == "s1"


def test_tables_by_split_and_numbers_as_labels(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    (tmp_path / "train.csv").write_text("label,path\n2,1.mp4\n10,2.mp4\n")
    (tmp_path / "test.csv").write_text("label,path\n10,3.mp4\n")
    (tmp_path / "val.csv").write_text("label,path\n2,3.mp4\n")
    data = found(tmp_path)
    assert data.classes == ["2", "10"] and data.splits["evaluate"].records[0].labels == (1,)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match="train.csv, line 3: the label '10' is none of the 3 classes"):
        found(tmp_path)
    (tmp_path / "train.csv").write_text("label,path\n2,1.mp4\n0,2.mp4\n")
    (tmp_path / "test.csv").write_text("label,path\n0,3.mp4\n")
    assert found(tmp_path).splits["train"].records[0].labels == (2,)
    assert found(tmp_path, evaluation=True, trained=Trained(["x", "y"])).classes == ["a", "b", "c"]


BAD_TABLES = {
    "path,label\n../x.mp4,a\n": "line 2: the path '../x.mp4' leads out",
    "path,label\nx.mp4,a,b\n": "line 2: 3 fields, the header has 2",
    "path,label\n,a\n": "line 2: no path",
    "path,label\nx.mp4,\n": "line 2: no label",
    "path,label,split\nx.mp4,a,dev\n": "line 2: split 'dev' is unknown",
    "path,label\n": "has no rows",
    "path,label,label\n": "there are two columns 'label'",
    'path,label\n"x.mp4,a\n': "clips.csv, line",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_rows_of_tables_are_checked(tmp_path: Path, text: str) -> None:
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(UserError) as error:
        found(tmp_path, train_list="clips.csv")
    assert BAD_TABLES[text] in str(error.value) and "\n" not in str(error.value)


def test_a_list_without_validation_is_held_out_and_its_split_is_a_table_again(tmp_path: Path) -> None:
    names = [f"{label}/{person}_{number}.mp4" for label in "ab" for person in "xyz" for number in range(3)]
    make(tmp_path, *names)
    (tmp_path / "train.txt").write_text("".join(f"{name} 9 {'ab'.index(name[0])}\n" for name in names))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    data = found(tmp_path, division=Division(group="^(.)_"))
    people = {name: {record.path[2] for record in split.records} for name, split in data.splits.items()}
    assert not people["train"] & people["evaluate"] and len(people["evaluate"]) == 1
    write_division(tmp_path / "split.csv", data.division)
    (tmp_path / "train.txt").unlink()
    again = found(tmp_path, group="group", division=Division(group="group"))
    assert {n: {r.path for r in s.records} for n, s in again.splits.items()} == {
        n: {r.path for r in s.records} for n, s in data.splits.items()
    }


def test_folds_are_for_data_without_validation(tmp_path: Path) -> None:
    folders(tmp_path, "train", "val")
    with pytest.raises(UserError, match="has validation videos"):
        found(tmp_path, division=Division(folds=2, fold=0))
    folders(tmp_path / "x", "", count=6)
    parts = [found(tmp_path / "x", division=Division(folds=3, fold=fold)).splits["evaluate"] for fold in range(3)]
    assert len({record.path for part in parts for record in part.records}) == 12


def test_what_somebody_should_know_is_a_line_each(tmp_path: Path) -> None:
    folders(tmp_path, "train", classes="a", count=24)
    folders(tmp_path, "train", classes="b", count=2)
    make(tmp_path, "train/c/only.mp4", "train/junk/notes.txt", "val/a/a.mp4", "train/loose.mp4")
    os.mkfifo(tmp_path / "train/a/pipe.mp4")
    (tmp_path / "train/b/self").symlink_to(tmp_path / "train")
    (tmp_path / "train/b/loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "train/b/dir.mp4").mkdir()
    (tmp_path / "val/a/copy.mp4").write_bytes((tmp_path / "train/a/train7.mp4").read_bytes())
    (tmp_path / "val/b").mkdir()
    where = Where(tmp_path, tmp_path)
    notes = "\n".join(collect(where, Division(), Demands(inspect=False)).notes)
    for says in (
        "junk",
        "3 entries are left out",
        "classes without a clip in evaluate: 2 of 3: b, c",
        "classes with a single clip in train: 1 of 3: c",
        "a has 24 clips in train, c 1 (24 times as many)",
        "videos next to class folders are not used; the first: loose.mp4",
    ):
        assert says in notes, notes


def test_equal_rows_lists_and_files_are_said(tmp_path: Path) -> None:
    make(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "2.mp4").read_bytes())
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "train.txt").write_text("1.mp4 9 0\n2.mp4 9 1\n./1.mp4 9 0\n")
    (tmp_path / "val.txt").write_text("copy.mp4 9 1\n1.mp4 9 0\n")
    notes = "\n".join(found(tmp_path).notes)
    assert "1 videos are listed more than once in train; the first: 1.mp4" in notes
    assert "1 of 2 videos of evaluate are also in train; the first: 1.mp4" in notes
    from adafocus.data.remarks import about_copies

    assert "copy.mp4 = 2.mp4" in about_copies(found(tmp_path).splits, tmp_path)[0]
    (tmp_path / "val.txt").write_bytes((tmp_path / "train.txt").read_bytes())
    assert "all videos of evaluate are also in train" in "\n".join(found(tmp_path).notes)


def test_names_that_are_not_utf8_are_found_and_written(tmp_path: Path) -> None:
    for name in (b"a/caf\xe9.mp4", b"a/2.mp4", b"b\xff/1.mp4", b"b\xff/2.mp4"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    data = found(tmp_path)
    assert data.classes == ["a", "b\\udcff"] and sizes(data) == {"train": 2, "evaluate": 2}
    write_division(tmp_path / "split.csv", data.division)
    assert sizes(found(tmp_path)) == {"train": 2, "evaluate": 2}
    (tmp_path / "split.csv").unlink()
    (tmp_path / "train.txt").write_bytes(b"a/caf\xe9.mp4 9 0\na/gone\xe9.mp4 9 0\n")
    (tmp_path / "val.txt").write_text("a/2.mp4 9 0\n")
    with pytest.raises(UserError, match="gone.*save the list as UTF-8"):
        found(tmp_path, classes=1)
