"""Reads lists of videos and looks up the listed files.

A list row is `path num_frames label [label [label]]` with one separator (a space or a comma); labels count from 0.
Tables with a header are read in `tables.py`, class folders in `folders.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from adafocus.core.errors import UserError
from adafocus.data.paths import below, has_stray_bytes, printable, read_text

MAX_LABELS = 3


@dataclass(frozen=True, slots=True)
class Record:
    """One video of a list: its path below the video root, its class ids (ascending), and its frame count if known."""

    path: str
    labels: tuple[int, ...]
    num_frames: int | None = None
    group: str | None = None  # such as a person or recording; videos of a group stay in the same split


@dataclass
class Split:
    """The videos of one split, and what was found when their files were looked up.

    Attributes:
        records: the videos in use; in evaluation including missing ones, which count as wrong.
        listed: number of rows in the list (or of files in the class folders).
        expected: number of videos that the data set should have; None if it is not known.
        too_short: number of rows that were dropped because they have fewer frames than dataset.min_frames.
        missing: listed paths that do not exist.
        bad: path of each unreadable file -> reason.
    """

    records: Sequence[Record]
    listed: int
    expected: int | None = None
    too_short: int = 0
    missing: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)

    def leave_out(self, paths: Collection[str]) -> None:
        """Removes the videos with these paths from `records`."""
        self.records = [record for record in self.records if record.path not in paths]

    def class_counts(self, classes: int) -> np.ndarray:
        """Number of videos (K,) of each class; a video with several classes counts for each of them."""
        return np.bincount([label for record in self.records for label in record.labels], minlength=classes)

    def summary(self) -> dict[str, object]:
        """Returns counts and the range of labels, for the log and the run folder."""
        seen = [label for record in self.records for label in record.labels]
        return {
            "listed": self.listed,
            "expected": self.expected,
            "found": self.listed - self.too_short - len(self.missing) - len(self.bad),
            "missing": len(self.missing),
            "too_short": self.too_short,
            "unreadable": len(self.bad),
            "labels": [min(seen), max(seen)] if seen else None,
        }


def read_classes(path: Path) -> list[str]:
    """Reads class names, one per line; the line number from 0 is the class id."""
    if not path.is_file():
        raise UserError(
            f"class file {path} does not exist; set dataset.class_file (null: classes are numbered) or dataset.root"
        )
    names = [line.strip() for line in read_text(path).splitlines()]
    while names and not names[-1]:  # blank lines at the end are allowed
        names.pop()
    if not names:
        raise UserError(f"class file {path} is empty; it needs one class name per line")
    places: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(
                f"class file {path}, line {number}: the name is empty; one class name per line, without blank lines"
            )
        if name in places:
            raise UserError(
                f"class file {path}, line {number}: {name!r} is already the class of line {places[name]}; remove one"
            )
        places[name] = number
    return names


def read_list(
    path: Path,
    num_classes: int | None,
    *,
    separator: str = " ",
    min_frames: int = 1,
    divisor: int = 1,
    videos: Path | None = None,
) -> Split:
    """Reads a list file and checks every row.

    Args:
        path: the list.
        num_classes: labels must be below this number; None: any.
        separator: separates the fields of a row. With a space, the last two fields are frame count and label, and paths
            may contain spaces; with a comma, up to three labels follow the count.
        min_frames: rows with fewer frames are dropped.
        divisor: number of files per frame that the counts include.
        videos: the folder of the videos; absolute paths are allowed if they are inside it.

    Raises:
        UserError: a row is invalid or its path leads out of the folder; the message names the line.
    """
    if not path.is_file():
        raise UserError(f"list {path} does not exist; set dataset.train_list and dataset.val_list (or dataset.root)")
    records, too_short, rows, name = [], 0, 0, str(path)
    for number, line in enumerate(read_text(path, names_of_files=True).splitlines(), start=1):
        if not line.strip():
            continue
        rows += 1
        record = _parse_row(line.strip(), separator, f"{name}, line {number}", videos)
        if divisor > 1 and record.num_frames is not None:
            record = replace(record, num_frames=record.num_frames // divisor)
        worst = max(record.labels)
        if min(record.labels) < 0 or (num_classes is not None and worst >= num_classes):
            limit = "" if num_classes is None else f" and below the {num_classes} classes"
            raise UserError(f"{path}, line {number}: label {worst} is out of range; labels count from 0{limit}")
        if record.num_frames is not None and record.num_frames < min_frames:
            too_short += 1
        else:
            records.append(record)
    if not rows:
        raise UserError(f"list {path} has no rows; each must be `path num_frames label`")
    return Split(records, listed=rows, too_short=too_short)


def _parse_row(line: str, separator: str, where: str, videos: Path | None) -> Record:
    fields = line.rsplit(None, 2) if separator == " " else [part.strip() for part in line.split(separator)]
    try:
        count = int(fields[1])
        labels = _labels(tuple(fields[2:]))
    except (IndexError, ValueError):
        labels, count = (), 0
    if not labels or not fields[0]:
        raise UserError(
            f"{where}: cannot read {printable(line[:80])!r}; a row is `path{separator}num_frames{separator}label`"
        )
    if len(labels) > MAX_LABELS:
        raise UserError(f"{where}: {len(labels)} labels; at most {MAX_LABELS} are supported")
    return Record(below(fields[0], where, videos), labels, count if count > 0 else None)


@lru_cache(maxsize=10_000)
def _labels(fields: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the class ids in fields of a row, sorted, as one shared tuple for equal ids to save memory."""
    return tuple(sorted({int(value) for value in fields}))


def look_up(split: Split, root: Path, *, bad_list: frozenset[str], keep_missing: bool) -> Split:
    """Looks up the file of every record and fills `missing` and `bad`.

    Args:
        split: the split as its list defines it; it is changed in place.
        root: the folder that record paths are relative to.
        bad_list: paths (as in the list) that an earlier check found unreadable.
        keep_missing: whether to keep missing and bad videos, which evaluation counts as wrong; training drops them.

    Raises:
        UserError: the list and the file names have different text encodings.
    """
    base = str(root)
    split.missing = [record.path for record in split.records if not os.path.exists(f"{base}/{record.path}")]
    if odd := next((path for path in split.missing if has_stray_bytes(path)), None):
        raise UserError(f"{printable(odd)}: no file has this name, which is not UTF-8; save the list as UTF-8")
    absent = set(split.missing)
    split.bad = {
        record.path: "named by dataset.bad_list"
        for record in split.records
        if record.path in bad_list and record.path not in absent
    }
    if not keep_missing:
        split.leave_out(absent | set(split.bad))
    return split


def read_bad_list(path: Path | None) -> frozenset[str]:
    """Reads the paths in a bad.txt of `adafocus prepare check`, whose lines are a path, a tab and the reason."""
    if path is None:
        return frozenset()
    if not path.is_file():
        raise UserError(f"list of bad files {path} does not exist; write it with `adafocus prepare check`")
    return frozenset(line.split("\t")[0] for line in read_text(path, names_of_files=True).splitlines() if line.strip())


def resolve_flip_pairs(pairs: Sequence[Sequence[str]], classes: Sequence[str]) -> dict[int, int]:
    """Returns the class ids that a horizontal flip exchanges, in both directions, from pairs of class names."""
    swap: dict[int, int] = {}
    for pair in pairs:
        unknown = [name for name in pair if name not in classes]
        if len(pair) != 2 or unknown:
            raise UserError(
                f"dataset.flip_pairs: {list(pair)} must be two class names of this data set; unknown: {unknown}"
            )
        left, right = classes.index(pair[0]), classes.index(pair[1])
        swap[left], swap[right] = right, left
    return swap
