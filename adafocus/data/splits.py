"""Finds the splits and classes of a data set folder, from lists, a CSV table or class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from adafocus.core.errors import UserError
from adafocus.data.annotations import Record, Split, read_classes, read_list
from adafocus.data.folders import ClassFolders, class_folders, folder_split, folders_below
from adafocus.data.paths import printable
from adafocus.data.tables import SPLIT_NAMES, Table, classes_of, labels_are_names, read_table, split_of

LAYOUTS = (
    "train.txt and val.txt with classes.txt, a table with the columns path and label, "
    "train/CLASS/*.mp4 and val/CLASS/*.mp4, or "
    "CLASS/*.mp4"
)
_USUAL = frozenset(f"{name}.{suffix}" for names in SPLIT_NAMES.values() for name in names for suffix in ("txt", "csv"))


@dataclass(frozen=True)
class Where:
    """Paths of the videos and lists of a data set, relative to `root`; None: files with the names in `SPLIT_NAMES`.

    Attributes:
        root: the folder of the data set.
        videos: the folder that paths in lists are relative to.
        train_list, val_list, test_list: lists or tables.
        class_file: file with one class name per line.
        classes: number of classes, if known.
        separator, min_frames, divisor: arguments of `annotations.read_list`.
        group: a column of tables that becomes `Record.group`.
    """

    root: Path
    videos: Path
    train_list: str | None = None
    val_list: str | None = None
    test_list: str | None = None
    class_file: str | None = None
    classes: int | None = None
    separator: str = " "
    min_frames: int = 1
    divisor: int = 1
    group: str | None = None

    def typed(self) -> dict[str, str | None]:
        """The configured lists, by split."""
        return {"train": self.train_list, "val": self.val_list, "test": self.test_list}


@dataclass
class Found:
    """The videos of a data set.

    Attributes:
        classes: class names by id.
        splits: the videos by split: those of `train`, `val` and `test` that exist.
        columns: names of the table's columns, if there is a table.
        classes_below: folders (relative to the root) that hold class folders; None if lists name the videos.
        notes: remarks for the log.
    """

    classes: list[str]
    splits: dict[str, Split]
    columns: list[str] = field(default_factory=list)
    classes_below: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def find(where: Where, *, known: Sequence[str] | None = None, evaluation: bool = False) -> Found:
    """Finds the splits and classes of a data set.

    Args:
        where: paths of the videos and lists.
        known: class names by id of an evaluated network, which define the ids of class folders and table labels.
        evaluation: whether to look only for the videos to evaluate: test, else val, else train.

    Raises:
        UserError: nothing is found, files are ambiguous, a row cannot be read, or a class is unknown.
    """
    lists = _lists(where)
    if not lists:
        return _from_folders(where, known, evaluation)
    taught = lists.get("train")  # the training table defines the classes
    if evaluation:
        lists = dict([next((split, lists[split]) for split in ("test", "val", "train") if split in lists)])
    elif "train" not in lists:
        name = next(iter(lists.values())).name
        raise UserError(f"{where.root} holds {name} but no training list; training needs train.txt (or train.csv)")
    for path in lists.values():
        if not path.is_file():
            raise UserError(
                f"list {path} does not exist; set dataset.train_list and dataset.val_list (or dataset.root)"
            )
    read = {split: read_table(path, where.videos, where.group) for split, path in lists.items()}
    tables = {split: table for split, table in read.items() if table is not None}
    if tables:
        if odd := next((lists[split] for split in lists if split not in tables), None):
            raise UserError(f"{odd} must have a header with the columns path and label, as the other lists")
        classes_from = tables.get("train")
        if classes_from is None and taught is not None and taught.is_file():
            classes_from = read_table(taught, where.videos)
        found = _from_tables(where, tables, classes_from, known, evaluation)
        named = {*map(str.casefold, filter(None, where.typed().values())), *_USUAL}
        found.notes += [f"videos and labels are those of {p}" for p in lists.values() if p.name.casefold() not in named]
        return found
    classes = _class_names(where) or (list(known) if known else None)
    if classes is None:
        raise UserError(
            f"{where.root} has lists but no classes.txt; write one class name per line, or set dataset.class_file, or "
            f"dataset.classes=N for classes without names"
        )
    reader = partial(
        read_list,
        num_classes=len(classes),
        separator=where.separator,
        min_frames=where.min_frames,
        divisor=where.divisor,
        videos=where.videos,
    )
    return Found(classes, {split: reader(path) for split, path in lists.items()})


def listed(where: Where) -> list[Record]:
    """Returns all videos of all splits, without labels, including entries that are named like videos but are not."""
    lists = _lists(where)
    records = []
    for path in lists.values():
        table = read_table(path, where.videos)
        if table is not None:
            records += [Record(row.path, (0,)) for row in table.rows]
        else:
            records += read_list(path, None, separator=where.separator, videos=where.videos).records
    if not lists:
        for name in _split_folders(where.root).values() or ["."]:
            part = class_folders(where.root / name)
            paths = sorted(
                [video for videos in part.videos.values() for video in videos] + [path for path, _ in part.odd]
            )
            records += [Record(str(path.relative_to(where.root)), (0,)) for path in paths if not path.is_dir()]
    return records


def _lists(where: Where) -> dict[str, Path]:
    """Returns the lists by split, configured or with the usual names; empty if the classes are folders."""
    typed, root = where.typed(), where.root
    lists = {split: root / name for split, name in typed.items() if name}
    standard = {
        split: path for split in SPLIT_NAMES if split not in lists and (path := _standard(root, split)) is not None
    }
    if lists:  # if one list is configured, the usual names are not searched, except for validation
        return {**lists, **{split: path for split, path in standard.items() if split == "val" or "train" not in lists}}
    folders = [folder.name for folder in folders_below(root)]
    if "train" in standard or (standard and "train" not in map(split_of, folders)):
        return standard
    if any(split_of(name) for name in folders):
        return {}
    tables = [path for path in sorted(root.iterdir()) if _is_table(path)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:4])
        raise UserError(f"{root} holds several tables of videos ({names}); choose one with dataset.train_list=NAME")
    return {"train": tables[0]} if tables else {}


def _standard(root: Path, split: str) -> Path | None:
    """Returns the list of a split in `root`, such as train.txt or Train.csv; None if there is none.

    Raises:
        UserError: there are two.
    """
    for suffix in (".txt", ".csv"):
        names = [f"{name}{suffix}" for name in SPLIT_NAMES[split]]
        found = [path for path in sorted(root.iterdir()) if path.name.casefold() in names and path.is_file()]
        if len(found) > 1:
            raise UserError(
                f"{root} holds {found[0].name} and {found[1].name}; set dataset.{split}_list to one of them"
            )
        if found:
            return found[0]
    return None


def _is_table(path: Path) -> bool:
    if path.suffix.lower() != ".csv" or path.name.startswith(".") or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.readline(4096).replace(b"\0", b"").lower()
    return b"path" in head and b"label" in head and read_table(path) is not None


def _class_names(where: Where) -> list[str] | None:
    """Returns class names from the class file, or numbers if only the number of classes is known; else None."""
    file = where.root / (where.class_file or "classes.txt")
    if where.class_file or file.is_file():
        return read_classes(file)
    return None if where.classes is None else [str(number) for number in range(where.classes)]


def _from_tables(
    where: Where, tables: dict[str, Table], taught: Table | None, known: Sequence[str] | None, evaluation: bool
) -> Found:
    """Makes the data set of CSV tables; `taught` is the table of the training videos, which defines the classes."""
    first = next(iter(tables.values()))
    alone = len(tables) == 1 and any(row.split for row in first.rows)
    classes = _class_names(where) or (list(known) if known else None)
    named = classes is None or labels_are_names(list(tables.values()), classes)
    if classes is None:
        classes = classes_of([taught or first])
    if alone:
        splits = {name: first.records(classes, named, name) for name in SPLIT_NAMES}
        splits = {name: split for name, split in splits.items() if split.records}
        if not evaluation and "train" not in splits:
            raise UserError(f"{first.path}: no row has the split train; training needs some")
    else:
        splits = {split: table.records(classes, named) for split, table in tables.items()}
    return Found(classes, splits, columns=first.columns)


def _from_folders(where: Where, known: Sequence[str] | None, evaluation: bool) -> Found:
    root = where.root
    below = _split_folders(root)
    if below and "train" not in below and not evaluation:
        raise UserError(f"{root} holds {' and '.join(below.values())} but no folder train; training needs one")
    taught = None
    if evaluation and below:
        if "train" in below:  # the training folders define the classes, if they hold any videos
            taught = class_folders(root / below["train"]).classes
        below = dict([next((split, below[split]) for split in ("test", "val", "train") if split in below)])
    found = {split: class_folders(root / name) for split, name in below.items()} or {"train": class_folders(root)}
    names = below or {"train": "."}
    notes = []
    for split in [split for split, part in found.items() if not part.videos]:
        if found[split].loose:
            raise UserError(
                f"{root / names[split]} holds videos but no class folders; expected {names[split]}/CLASS/*.mp4".replace(
                    "./", ""
                )
            )
        if split != "train":
            notes.append(f"{root / names[split]} holds no video and is left out")
            del found[split]
    for split, part in found.items():
        notes += _remarks(root / names[split], part)
    classes = _folder_classes(where, found, names, taught, known)
    if len(classes) < 2 or not any(part.videos for part in found.values()):
        videos = sum(map(len, found["train"].videos.values())) if "train" in found else 0
        raise UserError(
            f"{root}: expected {LAYOUTS} with at least two classes of two videos; found "
            f"{len(classes)} classes, {videos} "
            f"training videos"
        )
    splits = {split: folder_split(root, part, classes) for split, part in found.items()}
    return Found(classes, splits, classes_below=[names[split] for split in found], notes=notes)


def _split_folders(root: Path) -> dict[str, str]:
    """Returns the names of the folders train, val and test that exist, by split; empty if the folders are classes."""
    folders = [folder.name for folder in folders_below(root)]
    below: dict[str, str] = {}
    for name in folders:
        split = split_of(name)
        if split in below:
            raise UserError(f"{root} holds {below[split]} and {name}, both of which are {split}; keep one of them")
        if split:
            below[split] = name
    if below:
        others = class_folders(root, without=below.values())
        if others.videos or others.loose:
            classes = ", ".join(map(printable, list(others.videos)[:3])) or others.loose[0].name
            raise UserError(
                f"{root} holds {', '.join(below.values())} and also {classes}: it is not clear whether folders are "
                f"classes or splits; move the classes into train/, or rename the class"
            )
    return {split: below[split] for split in SPLIT_NAMES if split in below}


def _remarks(folder: Path, part: ClassFolders) -> list[str]:
    notes = []
    if part.empty:
        names = ", ".join(map(printable, part.empty[:5]))
        notes.append(f"{folder}: {len(part.empty)} folders hold no video and are no class: {names}")
    if part.odd:
        notes.append(f"{len(part.odd)} entries are left out; the first: {printable(': '.join(map(str, part.odd[0])))}")
    if part.loose:
        notes.append(
            f"{folder}: {len(part.loose)} videos next to class folders are not used; the first: {part.loose[0].name}"
        )
    return notes


def _folder_classes(
    where: Where,
    found: dict[str, ClassFolders],
    names: dict[str, str],
    taught: list[str] | None,
    known: Sequence[str] | None,
) -> list[str]:
    """Returns class names by id: from the class file, else of the evaluated network, else of the training folder."""
    classes, source = taught or next(iter(found.values())).classes, "the training set"
    if where.class_file:
        classes, source = read_classes(where.root / where.class_file), where.class_file
    elif known and set(classes) & set(known):
        classes, source = list(known), "the checkpoint"
    for split, part in found.items():
        if extra := sorted(set(part.classes) - set(classes)):
            raise UserError(f"{where.root / names[split]} has classes that {source} does not have: {extra[:5]}")
    return classes
