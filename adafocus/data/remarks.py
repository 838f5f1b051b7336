"""Remarks about a data set for the log: uneven classes, videos that are listed twice, copies across splits."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from adafocus.data.annotations import Split
from adafocus.data.paths import printable

IMBALANCE = 10  # a larger ratio between the largest and the smallest class gives a remark
_NAMED = 5  # maximal number of classes or files that a remark names
_HEAD = 2**16  # number of bytes at the beginning of files of equal size that are compared before the whole files


def clips_of_classes(classes: Sequence[str], splits: Mapping[str, Split]) -> dict[str, np.ndarray]:
    """Counts the videos of each class by split; a video with several classes counts for each of them."""
    return {name: split.class_counts(len(classes)) for name, split in splits.items()}


def class_table(classes: Sequence[str], counts: Mapping[str, np.ndarray], longest: int = 20) -> list[str]:
    """Returns a table of videos per class as lines; with more than `longest` classes, a summary line per split."""
    if len(classes) > longest:
        return [
            f"{name}: {values.min()} to {values.max()} clips per class, median {np.median(values):g}"
            for name, values in counts.items()
        ]
    shown = [printable(name)[:40] for name in classes]
    width = max(map(len, [*shown, "class"]))
    lines = [f"{'class':{width}}  " + "  ".join(f"{name:>8}" for name in counts)]
    return lines + [
        f"{name:{width}}  " + "  ".join(f"{values[number]:>8}" for values in counts.values())
        for number, name in enumerate(shown)
    ]


def about_classes(classes: Sequence[str], counts: Mapping[str, np.ndarray]) -> list[str]:
    """Returns remarks about classes with no or one video, and about large differences between classes."""

    def named(chosen: np.ndarray) -> str:
        places = np.flatnonzero(chosen)
        more = ", ..." if len(places) > _NAMED else ""
        return f"{len(places)} of {len(classes)}: " + ", ".join(printable(classes[n]) for n in places[:_NAMED]) + more

    lines = []
    for name, values in counts.items():
        if (values == 0).any():
            lines.append(f"classes without a clip in {name}: {named(values == 0)}")
    train = counts.get("train")
    if train is None:
        return lines
    if (train == 1).any():
        lines.append(f"classes with a single clip in train: {named(train == 1)}")
    some = train[train > 0]
    if len(some) and some.max() > IMBALANCE * some.min():
        large, small = int(train.argmax()), int(np.where(train > 0, train, train.max() + 1).argmin())
        lines.append(
            f"uneven classes: {printable(classes[large])} has {train[large]} clips in train, "
            f"{printable(classes[small])} "
            f"{train[small]} ({train[large] / train[small]:.0f} times as many)"
        )
    return lines


def about_rows(splits: Mapping[str, Split]) -> list[str]:
    """Returns remarks about videos that are listed more than once, in one split or in several."""
    lines, sides = [], {}
    for name, split in splits.items():
        seen = Counter(record.path for record in split.records)
        if twice := [path for path, count in seen.items() if count > 1]:
            lines.append(f"{len(twice)} videos are listed more than once in {name}; the first: {printable(twice[0])}")
        sides[name] = set(seen)
    train = sides.pop("train", set())
    for name, paths in sides.items():
        if both := sorted(train & paths):
            every = "all" if paths <= train else f"{len(both)} of {len(paths)}"
            lines.append(f"{every} videos of {name} are also in train; the first: {printable(both[0])}")
    return lines


def about_copies(splits: Mapping[str, Split], root: Path) -> list[str]:
    """Returns remarks about validation and test files that are copies of training files."""
    sizes: dict[int, list[str]] = {}
    train = {record.path for record in splits["train"].records}
    for path in sorted(train):
        sizes.setdefault(_size(root / path), []).append(path)
    lines = []
    for name, split in splits.items():
        pairs = []
        for path in () if name == "train" else sorted({record.path for record in split.records} - train):
            if (size := _size(root / path)) > 0 and (same := sizes.get(size)):
                for whole in (False, True):
                    own = _digest(root / path, whole)
                    same = [other for other in same if own and _digest(root / other, whole) == own]
                pairs += [(path, other) for other in same[:1]]
        if pairs:
            first = f"{printable(pairs[0][0])} = {printable(pairs[0][1])}"
            lines.append(f"{len(pairs)} files of {name} are copies of files in train; the first: {first}")
    return lines


def _size(path: Path) -> int:
    """Returns the size of a file in bytes; -1 for a folder or a missing file."""
    try:
        return os.path.getsize(path) if os.path.isfile(path) else -1
    except (OSError, ValueError):
        return -1


def _digest(path: Path, whole: bool) -> bytes:
    """Returns a hash of a file, or if `whole` is false of its first bytes; empty if it cannot be read."""
    digest = hashlib.blake2b()
    try:
        with open(path, "rb") as file:
            while part := file.read(_HEAD):
                digest.update(part)
                if not whole:
                    break
    except OSError:
        return b""
    return digest.digest()
