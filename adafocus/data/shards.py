"""Shards: videos packed into a few tar files, and an index of where in them each video is.

A shard is an uncompressed tar: any tool lists and unpacks it, WebDataset streams it, and each video is one range of
bytes, which is all that reading in random order needs. Tar itself has no index, so `index.npy` and `names.npy` hold one
as arrays that are mapped into memory: a run starts as fast with a million videos as with a hundred.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from adafocus.core.errors import UserError
from adafocus.core.files import first_line, read_json
from adafocus.data.annotations import MAX_LABELS, Record, Split
from adafocus.data.packets import VideoError
from adafocus.data.paths import below
from adafocus.data.remote import RemoteFiles
from adafocus.data.tables import SPLIT_NAMES

SHARDS, INDEX, NAMES = "shards.json", "index.npy", "names.npy"
FORMAT = 1
#: A row of the index: the number of the shard, first byte and number of bytes of the video in it (0: it is missing),
#: where its path ends in the names, and its class ids, padded with -1.
ROW = np.dtype([("shard", "<u4"), ("start", "<u8"), ("size", "<u8"), ("end", "<u8"), ("labels", "<i4", (MAX_LABELS,))])


@dataclass(frozen=True, slots=True)
class ShardRecord(Record):
    """A video of shards: its row in the index."""

    row: int = -1


@dataclass
class ShardIndex:
    """The index of shards.

    Attributes:
        folder: the folder or address of the shards.
        classes: class names by id.
        splits: first and last row (exclusive) of each split; without validation videos it is `train` alone.
        shards: file name and size in bytes of each shard.
        bad: reason by row for the videos that were missing or unreadable when they were packed.
        rows: (N,) of type `ROW`.
        names: the paths of all videos, one after the other, uint8.
        class_folders: folders that held the class folders; None if lists named the videos.
    """

    folder: str
    classes: list[str]
    splits: dict[str, tuple[int, int]]
    shards: list[tuple[str, int]]
    bad: dict[int, str]
    rows: np.ndarray
    names: np.ndarray
    class_folders: list[str] | None = None

    def record(self, row: int) -> ShardRecord:
        """The video of a row."""
        first = int(self.rows[row - 1]["end"]) if row else 0
        entry = self.rows[row]
        path = self.names[first : int(entry["end"])].tobytes().decode("utf-8", "surrogateescape")
        # The path is a name only: it is shown and hashed, and its suffix chooses the reader.
        return ShardRecord(path, tuple(int(label) for label in entry["labels"] if label >= 0), row=row)

    def split(self, name: str) -> ShardSplit:
        """The videos of a split."""
        first, last = self.splits[name]
        return ShardSplit(ShardRecords(self, np.arange(first, last)), listed=last - first)


class ShardRecords(Sequence[Record]):
    """The records of some rows of an index, made when they are asked for."""

    def __init__(self, index: ShardIndex, rows: np.ndarray) -> None:
        self.shards, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> ShardRecords: ...

    def __getitem__(self, place: int | slice) -> Record | ShardRecords:
        if isinstance(place, slice):
            return ShardRecords(self.shards, self.rows[place])
        return self.shards.record(int(self.rows[place]))

    def __iter__(self) -> Iterator[Record]:
        return (self.shards.record(int(row)) for row in self.rows)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class ids (n, L) padded with -1."""
        return self.shards.rows["labels"][self.rows]


class ShardSplit(Split):
    """A split whose records are rows of an index."""

    @property
    def own(self) -> ShardRecords:
        """The records."""
        assert isinstance(self.records, ShardRecords)
        return self.records

    def leave_out(self, paths: Collection[str]) -> None:
        """See `Split.leave_out`."""
        index, rows = self.own.shards, self.own.rows
        gone = [row for row in index.bad if index.record(row).path in paths]
        if len({index.record(row).path for row in gone}) < len(paths):  # others than the index names
            gone = [row for row in rows.tolist() if index.record(row).path in paths]
        self.records = ShardRecords(index, rows[~np.isin(rows, gone)])

    def class_counts(self, classes: int) -> np.ndarray:
        """See `Split.class_counts`."""
        labels = self.own.labels
        return np.bincount(labels[labels >= 0], minlength=classes)

    def summary(self) -> dict[str, object]:
        """See `Split.summary`."""
        labels = self.own.labels
        seen = labels[labels >= 0]
        found = {"listed": self.listed, "expected": self.expected, "found": self.listed - len(self.bad), "missing": 0}
        span = [int(seen.min()), int(seen.max())] if len(seen) else None
        return {**found, "too_short": 0, "unreadable": len(self.bad), "labels": span}


def bad_records(split: Split, index: ShardIndex) -> dict[str, str]:
    """Path -> reason of the videos of a split that were missing or unreadable when they were packed."""
    if not index.bad:
        return {}
    rows = split.own.rows if isinstance(split, ShardSplit) else [getattr(record, "row", -1) for record in split.records]
    known = np.array(sorted(index.bad))
    return {index.record(row).path: index.bad[row] for row in known[np.isin(known, rows)].tolist()}


class ShardStorage:
    """Reads videos out of shards; see `Storage`.

    Args:
        index: the index.
        files: reads byte ranges of shards behind an address; None for a folder of this machine.
    """

    def __init__(self, index: ShardIndex, files: RemoteFiles | None = None) -> None:
        self.index, self.files = index, files

    def read(self, record: Record) -> bytes:
        """See `Storage`."""
        path, start, size = self._range(record)
        if not size:
            raise VideoError(f"{record.path}: it was missing when the shards were made")
        if self.files is not None:
            return self.files.read(path, start, size)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise VideoError(f"{record.path}: shard {path} cannot be read ({error.strerror})") from error
        if len(data) != size:
            raise VideoError(f"{record.path}: shard {path} is shorter than its index says")
        return data

    def prefetch(self, records: Sequence[Record]) -> None:
        """See `Storage`."""
        if self.files is not None:
            self.files.prefetch([found for record in records if (found := self._range(record))[2]])

    def _range(self, record: Record) -> tuple[str, int, int]:
        assert isinstance(record, ShardRecord)
        entry = self.index.rows[record.row]
        name = self.index.shards[int(entry["shard"])][0]
        return f"{self.index.folder}/{name}", int(entry["start"]), int(entry["size"])


def read_index(folder: Path, place: str | None = None) -> ShardIndex | None:
    """The index of shards; None if the folder holds none. Everything in it is checked, since it may be anybody's.

    Args:
        folder: the folder that holds the three files of the index.
        place: folder or address of the shards; None: the same folder.

    Raises:
        UserError: the index is damaged, or of another version.
    """
    content = read_json(folder / SHARDS, dict)
    if content is None:
        return None
    if content.get("format") != FORMAT:
        raise UserError(f"{folder / SHARDS} has format {content.get('format')}, not {FORMAT}; pack the videos again")
    try:
        arrays = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (INDEX, NAMES)]
        index = ShardIndex(
            str(folder if place is None else place).rstrip("/"),
            [str(name) for name in content["classes"]],
            {name: (int(first), int(last)) for name, (first, last) in content["splits"].items()},
            [(below(str(name), str(folder / SHARDS)), int(size)) for name, size in content["shards"]],
            {int(row): str(reason) for row, reason in content["bad"].items()},
            arrays[0],
            arrays[1],
            class_folders=content["class_folders"],
        )
        _check(index)
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: the index is damaged ({first_line(error)}); pack the videos again") from error
    return index


def _check(index: ShardIndex) -> None:
    """Raises ValueError if a row leads out of its shard, its name out of the names, or a label out of the classes."""
    rows, sizes = index.rows, np.array([size for _, size in index.shards] or [0], np.uint64)
    if rows.dtype != ROW or rows.ndim != 1 or index.names.dtype != np.uint8 or index.names.ndim != 1:
        raise ValueError("arrays of another type")
    if any("/" in name for name, _ in index.shards):
        raise ValueError("a shard in another folder")
    ends, labels = rows["end"], rows["labels"]
    if len(rows) and (
        (rows["shard"] >= len(sizes)).any() or (ends[1:] < ends[:-1]).any() or ends[-1] > len(index.names)
    ):
        raise ValueError("rows beyond the shards or names")
    of = sizes[rows["shard"]]
    if (rows["start"] > of).any() or (rows["size"] > of - rows["start"]).any():
        raise ValueError("videos beyond their shard")
    if (labels >= len(index.classes)).any() or (labels < -1).any() or (labels[:, 0] < 0).any():
        raise ValueError("labels beyond the classes")
    if not set(index.splits) <= set(SPLIT_NAMES) or any(not 0 <= a <= b <= len(rows) for a, b in index.splits.values()):
        raise ValueError("splits beyond the rows")
    if any(not 0 <= row < len(rows) for row in index.bad):
        raise ValueError("unreadable videos beyond the rows")


def index_content(
    classes: Sequence[str],
    splits: Mapping[str, tuple[int, int]],
    shards: Sequence[tuple[str, int]],
    bad: Mapping[int, str],
    class_folders: Sequence[str] | None,
) -> dict[str, Any]:
    """The content of shards.json; see `ShardIndex`."""
    found: dict[str, Any] = {"format": FORMAT, "classes": list(classes), "splits": dict(splits)}
    return {**found, "shards": list(shards), "bad": {str(row): why for row, why in bad.items()}} | {
        "class_folders": None if class_folders is None else list(class_folders)
    }
