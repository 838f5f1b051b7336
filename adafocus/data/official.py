"""Reads the official annotation files of the supported data sets: classes in the usual order, and videos by split.

Files are found by name anywhere below the annotations folder, so an unpacked archive and a flat folder both work.
Source: the scripts tools/gen_label_kinetics.py, gen_label_sthv1.py and gen_label_sthv2.py of
mit-han-lab/temporal-shift-module, and online_label_tools of liu-zhy/temporal-adaptive-module.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError
from adafocus.data.annotations import read_list
from adafocus.data.paths import below, printable, read_text


@dataclass(frozen=True)
class Entry:
    """A video of the annotations.

    Attributes:
        folder: path of its frame folder relative to the video root, as in the lists.
        labels: class ids, ascending.
        stems: names that its video file may have, without suffix.
    """

    folder: str
    labels: tuple[int, ...]
    stems: tuple[str, ...]


@dataclass
class Official:
    """Classes by id, and the entries of train and val."""

    classes: list[str]
    splits: dict[str, list[Entry]] = field(default_factory=dict)


def read_official(dataset: str, annotations: Path, *, split: int = 1) -> Official:
    """Reads the official annotations of a data set.

    Args:
        dataset: a key of FORMATS.
        annotations: the folder of the files, as distributed.
        split: number of the split, for UCF101 and HMDB51, which have three.

    Raises:
        UserError: a file is missing, or a row of it cannot be read.
    """
    if dataset not in FORMATS:
        raise UserError(f"data set {dataset!r} is unknown; choose one of {', '.join(sorted(FORMATS))}")
    if not annotations.is_dir():
        raise UserError(f"--annotations {annotations} is not a folder")
    try:
        official = FORMATS[dataset](annotations, split)
    except (LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{annotations}: cannot read the official files of {dataset} ({reason}); download them again"
        ) from error
    if odd := next((name for name in official.classes if not name or "\n" in name or "\r" in name), None):
        raise UserError(f"{annotations}: {printable(odd)!r} is not a class name: it has several lines")
    for name, entries in official.splits.items():
        for entry in entries:  # frames are written there
            if below(entry.folder, f"{annotations}, {name} videos") != entry.folder:
                raise UserError(
                    f"{annotations}, {name} videos: the path {printable(entry.folder)[:80]!r} is not allowed"
                )
    return official


def _find(folder: Path, *patterns: str) -> Path:
    for pattern in patterns:
        found = sorted(folder.rglob(pattern))
        if found:
            return found[0]
    raise UserError(f"{folder} holds no file {' or '.join(patterns)}")


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error


def _id(classes: dict[str, int], name: str, where: str) -> int:
    if name not in classes:
        raise UserError(f"{where}: class {name!r} is not in the data set's class file; use files of one release")
    return classes[name]


def clean_class(name: str) -> str:
    """Returns the folder name of a Kinetics class: spaces become underscores, quotes and parentheses are removed."""
    return re.sub("[\"()']", "", name.replace(" ", "_"))


def _kinetics(folder: Path, split: int) -> Official:
    """Reads `kinetics_{train,val}.csv` with a header; ids are line numbers of the alphabetical class map.

    The cleaned names are not in sorted order, so they are cleaned after numbering.
    """
    tables = {
        name: _find(folder, f"kinetics*_{name}*.csv", f"{name}.csv", f"validate{'' if name == 'val' else '-'}.csv")
        for name in ("train", "val")
    }
    rows = {name: list(csv.reader(read_text(path).splitlines())) for name, path in tables.items()}
    maps = sorted(folder.rglob("kinetics_label_map.txt"))
    names = _lines(maps[0]) if maps else sorted({row[0] for row in rows["train"][1:] if row})
    numbers = {name: number for number, name in enumerate(names)}
    official = Official([clean_class(name) for name in names])
    for name, table in rows.items():
        header = [cell.strip().lower() for cell in table[0]]
        columns = [
            next((header.index(known) for known in wanted if known in header), place)
            for place, wanted in enumerate(
                (("label",), ("youtube_id", "id"), ("time_start", "start"), ("time_end", "end"))
            )
        ]
        entries = []
        for number, row in enumerate(table[1:], start=2):
            if not row:
                continue
            where = f"{tables[name]}, line {number}"
            try:
                label, video, start = (row[column].strip() for column in columns[:3])
                stems = [f"{video}_{start}", video]
                if len(row) > columns[3]:
                    stems.insert(0, f"{video}_{int(float(start)):06d}_{int(float(row[columns[3]])):06d}")
            except (IndexError, ValueError):
                raise UserError(f"{where}: a row must be label,youtube_id,time_start,time_end,...") from None
            label_id = _id(numbers, label, where)
            entries.append(Entry(f"{clean_class(label)}/{video}_{start}", (label_id,), tuple(stems)))
        official.splits[name] = entries
    return official


def _ucf101(folder: Path, split: int) -> Official:
    """Reads `classInd.txt`, `trainlist01.txt` (`Class/file.avi id`) and `testlist01.txt` (`Class/file.avi`)."""
    names = [line.split(maxsplit=1)[1] for line in _lines(_find(folder, "classInd.txt"))]
    numbers = {name: number for number, name in enumerate(names)}
    official = Official(names)
    for name, kind in (("train", "train"), ("val", "test")):
        path = _find(folder, f"{kind}list{split:02d}.txt")
        official.splits[name] = [
            Entry(
                Path(file).stem, (_id(numbers, Path(file).parent.name, f"{path}, line {number}"),), (Path(file).stem,)
            )
            for number, file in enumerate((line.split()[0] for line in _lines(path)), start=1)
        ]
    return official


def _hmdb51(folder: Path, split: int) -> Official:
    """Reads `<class>_test_split1.txt` with rows `file.avi 1|2|0`: training, test, unused."""
    files = sorted(folder.rglob(f"*_test_split{split}.txt"))
    if not files:
        raise UserError(f"{folder} holds no file *_test_split{split}.txt")
    names = [path.name.removesuffix(f"_test_split{split}.txt") for path in files]
    official = Official(names, {"train": [], "val": []})
    for label, path in enumerate(files):
        for number, line in enumerate(_lines(path), start=1):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2") or not file:
                raise UserError(
                    f"{path}, line {number}: a row must be `file.avi 1`, with 1 for training, 2 for test, 0 for unused"
                )
            stem = Path(file.strip()).stem
            if use != "0":
                official.splits["train" if use == "1" else "val"].append(Entry(stem, (label,), (stem,)))
    return official


def _by_csv(prefix: str) -> Callable[[Path, int], Official]:
    """Makes the reader for Something-Something V1 and Jester: class names, one per line, and rows `id;class name`."""

    def read(folder: Path, split: int) -> Official:
        names = sorted(_lines(_find(folder, f"{prefix}-labels.csv", "*labels.csv")))
        numbers = {name: number for number, name in enumerate(names)}
        official = Official(names)
        for name, kind in (("train", "train"), ("val", "validation")):
            path = _find(folder, f"{prefix}-{kind}.csv", f"*{kind}.csv")
            entries = []
            for number, line in enumerate(_lines(path), start=1):
                video, _, label = line.partition(";")
                entries.append(Entry(video, (_id(numbers, label, f"{path}, line {number}"),), (video,)))
            official.splits[name] = entries
        return official

    return read


def _sthv2(folder: Path, split: int) -> Official:
    """Reads `labels.json` (class name -> id, in order) and lists of `id` and `template`, whose brackets are removed."""
    table = _json(_find(folder, "something-something-v2-labels.json", "labels.json"))
    names = sorted(table, key=lambda name: int(table[name]))
    if [int(table[name]) for name in names] != list(range(len(names))):
        raise UserError(f"{folder}: the ids in labels.json must be 0, 1, 2, ...; download it again")
    numbers = {name: number for number, name in enumerate(names)}
    official = Official(names)
    for name, kind in (("train", "train"), ("val", "validation")):
        path = _find(folder, f"something-something-v2-{kind}.json", f"{kind}.json")
        entries = []
        for place, row in enumerate(_json(path), start=1):
            label = re.sub(r"[\[\]]", "", row["template"])
            entries.append(Entry(str(row["id"]), (_id(numbers, label, f"{path}, entry {place}"),), (str(row["id"]),)))
        official.splits[name] = entries
    return official


def _actnet(folder: Path, split: int) -> Official:
    """Reads `activity_net.v1-3*.json` with several labels per video; classes as in `classInd.txt`, else sorted."""
    if not sorted(folder.rglob("activity_net*.json")) and sorted(folder.rglob("actnet_train_split.txt")):
        lists = ("actnet_train_split.txt", "actnet_val_split.txt")
        return _shipped(lists, "classInd.txt", ",")(folder, split)
    path = _find(folder, "activity_net*.json")
    database = _json(path)["database"]
    found = {label["label"] for video in database.values() for label in video.get("annotations", [])}
    shipped = sorted(folder.rglob("classInd.txt"))
    names = _class_ind(shipped[0]) if shipped else sorted(found)
    numbers = {name: number for number, name in enumerate(names)}
    official = Official(names, {"train": [], "val": []})
    subsets = {"training": "train", "validation": "val"}
    for video, entry in sorted(database.items()):
        if entry["subset"] not in subsets or not entry["annotations"]:
            continue
        labels = sorted({_id(numbers, label["label"], f"{path}, video {video}") for label in entry["annotations"]})
        official.splits[subsets[entry["subset"]]].append(Entry(f"v_{video}", tuple(labels), (f"v_{video}", video)))
    return official


def _class_ind(path: Path) -> list[str]:
    """Reads class names from lines `1 Name` or `Name`."""
    return [re.sub(r"^\d+[\s,]+", "", line) for line in _lines(path)]


def _shipped(names: Iterable[str], class_file: str, separator: str) -> Callable[[Path, int], Official]:
    """Makes the reader for lists of the AdaFocus repositories, `path, frames, label[, label]`; frames are recounted."""

    def read(folder: Path, split: int) -> Official:
        classes = _lines(_find(folder, class_file))
        official = Official(classes)
        for name, file in zip(("train", "val"), names, strict=True):
            records = read_list(_find(folder, file), len(classes), separator=separator).records
            official.splits[name] = [Entry(r.path, r.labels, (r.path, Path(r.path).name)) for r in records]
        return official

    return read


#: Data set -> reader of its annotations. The annotations of FCVID and Mini-Kinetics are available on request only, so
#: the lists in the AdaFocus repositories are read for them.
FORMATS: dict[str, Callable[[Path, int], Official]] = {
    "kinetics400": _kinetics,
    "minik": _shipped(("mini_train_videofolder.txt", "mini_val_videofolder.txt"), "minik_classInd.txt", " "),
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "sthv1": _by_csv("something-something-v1"),
    "sthv2": _sthv2,
    "jester": _by_csv("jester-v1"),
    "actnet": _actnet,
    "fcvid": _shipped(("fcvid_train_split.txt", "fcvid_val_split.txt"), "classInd.txt", ","),
}
