"""Lists of videos: what is in them, and whether it is what was promised.

A list row is `path num_frames label [label [label]]` with one separator (blank or comma); labels count from 0. Class
folders need no list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

from adafocus.core.errors import UserError

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".gif",
    ]
)
MAX_LABELS = 3


@dataclass(frozen=True)
class Record:
    """One video of a list: its path below the video root, its class ids (ascending), its frame count if the list says."""

    path: str
    labels: tuple[int, ...]
    num_frames: int | None = None


@dataclass
class Split:
    """The videos of one split and what was found when they were looked up.

    Attributes:
        records: the videos that take part. In evaluation that includes missing ones: they count as wrong.
        listed: rows in the list (or files in the class folders).
        expected: how many the data set is known to have; None where nobody knows.
        too_short: rows dropped because they have fewer frames than the seeds' limit.
        missing: listed paths that are not on the disk.
        bad: paths named by the list of bad files.
    """

    records: list[Record]
    listed: int
    expected: int | None = None
    too_short: int = 0
    missing: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """Counts and the range of labels, for the log and the run folder."""
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
    """Class names, one a line; the place is the id. A trailing number (UCF's `1 ApplyEyeMakeup`) stays in the name."""
    if not path.is_file():
        raise UserError(
            f"class file {path} does not exist; set dataset.class_file (null: classes are only numbered) or dataset.root"
        )
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    while names and not names[-1]:  # a blank last line is not a class
        names.pop()
    if not names:
        raise UserError(f"class file {path} is empty; it needs one class name a line")
    return names


def read_list(
    path: Path, num_classes: int | None, *, separator: str = " ", min_frames: int = 1, divisor: int = 1
) -> Split:
    """A list file as records; every row is checked, and the message names the line. `divisor`: files of one frame.

    Rows may hold paths with blanks: with a blank as separator the last two fields are count and label and only one
    label is possible; with a comma up to three labels follow the count.
    """
    if not path.is_file():
        raise UserError(f"list {path} does not exist; set dataset.train_list and dataset.val_list (or dataset.root)")
    records, too_short, rows = [], 0, 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        rows += 1
        record = _parse_row(line.strip(), separator, f"{path}, line {number}")
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


def _parse_row(line: str, separator: str, where: str) -> Record:
    fields = line.rsplit(None, 2) if separator == " " else [part.strip() for part in line.split(separator)]
    try:
        count = int(fields[1])
        labels = tuple(sorted({int(value) for value in fields[2:]}))
    except (IndexError, ValueError):
        labels, count = (), 0
    if not labels or not fields[0]:
        raise UserError(f"{where}: cannot read {line[:80]!r}; a row is `path{separator}num_frames{separator}label`")
    if len(labels) > MAX_LABELS:
        raise UserError(f"{where}: {len(labels)} labels; at most {MAX_LABELS} are supported")
    return Record(fields[0], labels, count if count > 0 else None)


def class_folders(root: Path) -> list[str]:
    """Names of the folders below `root` that hold at least one video, sorted: the classes of a folder data set."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and any(_videos(entry)))


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def folder_split(root: Path, below: str, classes: Sequence[str]) -> Split:
    """All videos of the class folders in `root/below`; record paths are relative to `root`."""
    records = []
    for label, name in enumerate(classes):
        records += [Record(str(video.relative_to(root)), (label,)) for video in _videos(root / below / name)]
    return Split(records, listed=len(records))


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """(train, val) of class folders that come without a split: within each class, a share chosen by a hash of the path.

    The choice depends on the path alone, so adding videos moves none of the old ones; a class of two or more videos
    always has one on each side.
    """
    by_class: dict[tuple[int, ...], list[Record]] = {}
    for record in split.records:
        by_class.setdefault(record.labels, []).append(record)
    train: list[Record] = []
    val: list[Record] = []
    for records in by_class.values():
        ranked = sorted(records, key=lambda record: crc32(record.path.encode()))
        count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
        val += ranked[:count]
        train += ranked[count:]
    return Split(sorted(train, key=_path), len(train)), Split(sorted(val, key=_path), len(val))


def _path(record: Record) -> str:
    return record.path


def look_up(split: Split, root: Path, *, bad_list: frozenset[str], keep_missing: bool) -> Split:
    """Finds every record on the disk and fills `missing` and `bad`.

    Args:
        split: what the list says.
        root: the folder that record paths are relative to.
        bad_list: paths (as in the list) that an earlier check found unreadable.
        keep_missing: evaluation keeps missing and bad videos (each counts as wrong); training drops them.
    """
    split.missing = [record.path for record in split.records if not (root / record.path).exists()]
    absent = set(split.missing)
    split.bad = [record.path for record in split.records if record.path in bad_list and record.path not in absent]
    if not keep_missing:
        drop = absent | set(split.bad)
        split.records = [record for record in split.records if record.path not in drop]
    return split


def read_bad_list(path: Path | None) -> frozenset[str]:
    """Paths of `bad.txt`, as `adafocus prepare check` writes it: one path a line, a tab and the reason after it."""
    if path is None:
        return frozenset()
    if not path.is_file():
        raise UserError(f"list of bad files {path} does not exist; write it with `adafocus prepare check`")
    return frozenset(line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def resolve_flip_pairs(pairs: Sequence[Sequence[str]], classes: Sequence[str]) -> dict[int, int]:
    """Class ids that a horizontal flip exchanges, from pairs of class names."""
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
