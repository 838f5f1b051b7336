"""Collects the videos of a run: finds them, splits them, looks up and inspects the files, and checks the counts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adafocus.core.errors import UserError
from adafocus.data import remarks
from adafocus.data.annotations import Split, look_up
from adafocus.data.hold_out import fold_out, groups_of, hold_out, straddling
from adafocus.data.inspection import broken_files
from adafocus.data.paths import encode, printable
from adafocus.data.shards import ShardIndex, ShardSplit, bad_records
from adafocus.data.splits import LAYOUTS, Found, Where, find

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """The data that an evaluated network was trained on, from its checkpoint: class names by id, and video paths."""

    classes: list[str] | None = None
    same: bool = True  # whether the evaluated data set is the same; then the same hold-out is evaluated
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Division:
    """Options for splitting the training videos if the data set has no validation videos; see `hold_out.py`."""

    fraction: float = 0.2
    group: str | None = None
    folds: int | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Demands:
    """Requirements on the videos that are found.

    Attributes:
        expected_train, expected_val: numbers of videos that must be found; None: any.
        allow_partial: whether fewer videos are accepted.
        limit: maximal number of videos per split, evenly spaced; None: all.
        bad_list: paths that are known to be unreadable.
        max_bad_fraction: share of the training videos that may be unreadable, besides those in `bad_list`.
        inspect: whether to inspect the packets of all video files.
        timeout: seconds that inspecting one file may take.
        keep_beside: whether results of the inspection may be cached in the folder of the videos, see `broken_files`.
        local: whether the videos are files of this disk, which are looked up and inspected.
    """

    expected_train: int | None = None
    expected_val: int | None = None
    allow_partial: bool = False
    limit: int | None = None
    bad_list: frozenset[str] = frozenset()
    max_bad_fraction: float = 0.05
    inspect: bool = True
    timeout: float = 60.0
    keep_beside: bool = True
    local: bool = True


@dataclass
class Collected:
    """The videos of a run by their use.

    Attributes:
        classes: class names by id.
        splits: `train` (not in evaluation), `evaluate` (the test videos, or the validation videos if there are none)
            and `validate` if that is another split.
        division: (path, class, group, split) of every video, if a part of the training videos is held out.
        counts: number of videos of each class by split, before unreadable ones are removed.
        notes: remarks about the data for the log.
        index: the index of the shards that hold the videos; None: files.
    """

    classes: list[str]
    splits: dict[str, Split]
    division: list[tuple[str, str, str, str]] = field(default_factory=list)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    index: ShardIndex | None = None


def collect(
    where: Where,
    division: Division,
    demands: Demands,
    *,
    trained: Trained | None = None,
    evaluation: bool = False,
    progress: Progress | None = None,
    index: ShardIndex | None = None,
) -> Collected:
    """Finds the videos of a data set and checks them.

    Args:
        where: paths of the lists and videos.
        division: how to split a data set without validation videos.
        demands: requirements on the videos.
        trained: the training data of an evaluated network, which defines the ids of class names.
        evaluation: whether to ignore training videos.
        progress: called with (done, all) while files are inspected.
        index: the index, if the videos are packed in shards; `where` then has no lists.

    Raises:
        UserError: data is missing, ambiguous or damaged.
    """
    known = trained.classes if trained else None
    found = find(where, known=known, evaluation=evaluation) if index is None else _packed(index, evaluation, known)
    collected = Collected(found.classes, {}, notes=list(found.notes), index=index)
    (_for_evaluation if evaluation else _for_training)(collected, found, where, division, trained)
    splits = collected.splits
    if where.classes is not None and len(found.classes) != where.classes:
        raise UserError(f"{where.root}: {len(found.classes)} classes found, {where.classes} expected (dataset.classes)")
    for name, split in splits.items():
        _look_up(name, split, where, demands, index)
    _compare_counts(splits, demands)
    for split in splits.values():
        if demands.limit is not None:
            split.records = split.records[:: -(-len(split.records) // demands.limit)]
    collected.counts = remarks.clips_of_classes(found.classes, splits)
    collected.notes += remarks.about_classes(found.classes, collected.counts)
    if not all(isinstance(split, ShardSplit) for split in splits.values()):  # a loop over all paths
        collected.notes += remarks.about_rows(splits)
    if demands.inspect and demands.local:
        if "train" in splits:
            collected.notes += remarks.about_copies(splits, where.videos)
        _inspect(splits, where.videos, demands, progress)
    if trained and trained.seen and (seen := [r for r in splits["evaluate"].records if r.path in trained.seen]):
        collected.notes.append(
            f"{len(seen)} of {len(splits['evaluate'].records)} evaluated videos have the path of a "
            f"training video of the "
            f"checkpoint; the first: {printable(seen[0].path)}"
        )
    return collected


def _packed(index: ShardIndex, evaluation: bool, known: Sequence[str] | None) -> Found:
    """What an index says about its videos, as `find` finds it in a folder."""
    if known is not None and list(known) != index.classes:
        raise UserError(f"{index.folder} has other classes than the checkpoint; pack the folder with its class file")
    names = list(index.splits)
    if evaluation:
        names = [next(name for name in ("test", "val", "train") if name in index.splits)]
    splits: dict[str, Split] = {name: index.split(name) for name in names}
    if "val" not in index.splits:  # a hold-out goes through all paths
        for name, split in splits.items():
            splits[name] = Split(list(split.records), listed=split.listed)
    return Found(index.classes, splits, classes_below=index.class_folders)


def _look_up(name: str, split: Split, where: Where, demands: Demands, index: ShardIndex | None) -> None:
    """Fills `missing` and `bad` of a split, from the disk or from the index; training leaves these videos out."""
    if demands.local:
        look_up(split, where.videos, bad_list=demands.bad_list, keep_missing=name != "train")
        return
    if index is not None:
        split.bad = bad_records(split, index)
    broken = {path: reason for path, reason in split.bad.items() if path not in demands.bad_list}
    if demands.bad_list:
        named = (record.path for record in split.records if record.path in demands.bad_list)
        split.bad |= dict.fromkeys(named, "named by dataset.bad_list")
    if name == "train":
        _check_share(broken, split.listed, demands.max_bad_fraction)
        split.leave_out(set(split.bad))


def _for_training(
    collected: Collected, found: Found, where: Where, division: Division, trained: Trained | None
) -> None:
    train, val, test = found.splits["train"], found.splits.get("val"), found.splits.get("test")
    if val is not None:
        if division.folds is not None:
            raise UserError(
                f"dataset.folds splits the training videos, but {where.root} has validation videos; leave it out"
            )
        if division.group is not None:
            names = {name: _groups(split, found, division.group)[0] for name, split in found.splits.items()}
            if both := straddling(names):
                collected.notes.append(
                    f"dataset.group={division.group}: {len(both)} groups are in more than one split; the first: "
                    f"{printable(both[0])}"
                )
    else:
        train, val = _divide(collected, train, found, where, division)
    if not train.records or not val.records:
        raise UserError(
            f"{where.root}: expected {LAYOUTS} with at least two classes of two videos; found "
            f"{len(found.classes)} classes, "
            f"{len(train.records)} training and {len(val.records)} evaluation videos"
        )
    collected.splits = {"train": train, "evaluate": val if test is None else test}
    if test is not None:
        collected.splits["validate"] = val


def _for_evaluation(
    collected: Collected, found: Found, where: Where, division: Division, trained: Trained | None
) -> None:
    name: str = next(name for name in ("test", "val", "train") if name in found.splits)
    split = found.splits[name]
    if name == "train" and (trained is None or trained.same):
        _, split = _divide(collected, split, found, where, division)
        name = "held-out"
    elif name == "train":
        collected.notes.append(f"{where.root} has no split, so all its videos are evaluated")
    if not split.records:
        raise UserError(f"{where.root}: no {name} videos to evaluate")
    collected.splits = {"evaluate": split}


def _divide(collected: Collected, pool: Split, found: Found, where: Where, division: Division) -> tuple[Split, Split]:
    groups = None
    if division.group is not None:
        groups, remark = _groups(pool, found, division.group)
        collected.notes += [remark] if remark else []
    if division.folds is not None and division.fold is not None:
        sides = fold_out(pool, division.folds, division.fold, groups)
    else:
        sides = hold_out(pool, division.fraction, groups)
    by_path = dict(zip([record.path for record in pool.records], groups or (), strict=False))
    for name, split in (*zip(("train", "val"), sides, strict=True), ("test", found.splits.get("test"))):
        collected.division += [
            (
                record.path,
                "|".join(found.classes[label] for label in record.labels),
                by_path.get(record.path, "").lstrip("\0") if name != "test" else record.group or "",
                name,
            )
            for record in (split.records if split is not None else ())
        ]
    return sides


def _groups(split: Split, found: Found, by: str) -> tuple[list[str], str]:
    return groups_of(split, by, found.columns, found.classes_below)


def _compare_counts(splits: dict[str, Split], demands: Demands) -> None:
    names = {"train": "training", "evaluate": "evaluation", "validate": "validation"}
    of_val = "validate" if "validate" in splits else "evaluate"
    for name, split in splits.items():
        split.expected = {"train": demands.expected_train, of_val: demands.expected_val}.get(name)
        found = split.summary()["found"]
        if not found:
            first = f"; first missing: {printable(split.missing[0])}" if split.missing else ""
            raise UserError(
                f"none of the {split.listed} {names[name]} videos exists{first}; check dataset.root and dataset.videos"
            )
        if split.expected is not None and found != split.expected and not demands.allow_partial:
            raise UserError(
                f"{found} of {split.expected} expected {names[name]} videos found ({len(split.missing)} missing); "
                f"complete them, or accept with dataset.allow_partial=true"
            )


def _inspect(splits: dict[str, Split], videos: Path, demands: Demands, progress: Progress | None) -> None:
    """Inspects all files and fills `bad`; removes unreadable training videos, while others count as wrong."""
    skipped = {path for split in splits.values() for path in (*split.missing, *split.bad)}
    paths = [record.path for split in splits.values() for record in split.records if record.path not in skipped]
    broken = broken_files(
        paths,
        videos,
        workers=_cores(),
        timeout=demands.timeout,
        beside=demands.keep_beside,
        progress=progress,
    )
    for name, split in splits.items():
        found = {record.path: broken[record.path] for record in split.records if record.path in broken}
        split.bad |= found
        if name == "train":
            _check_share(found, len(split.records), demands.max_bad_fraction)
            split.leave_out(found)


def _check_share(broken: dict[str, str], videos: int, fraction: float) -> None:
    if broken and (len(broken) > int(fraction * videos) or len(broken) == videos):
        path, reason = next(iter(broken.items()))
        raise UserError(
            f"{len(broken)} of {videos} training videos are unreadable, more than dataset.max_bad_fraction allows "
            f"({int(fraction * videos)}); the first: {printable(path)}: {reason}. `adafocus prepare check` lists them "
            f"all for dataset.bad_list"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_division(path: Path, rows: Collection[Sequence[str]]) -> None:
    """Writes split.csv, the split of every video, which can be used as dataset.train_list."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "group", "split"))
    writer.writerows(rows)
    path.write_bytes(encode(text.getvalue()))
