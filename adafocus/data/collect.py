"""The videos that a run trains on and is measured on: found, divided, looked up, inspected, and what is to be said of them."""

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
from adafocus.data.splits import LAYOUTS, Found, Where, find

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """What an evaluated network was trained on, as far as its file says: class names by id, and paths of its training videos."""

    classes: list[str] | None = None
    same: bool = True  # whether it was the data set that is evaluated now: then its hold-out is what is evaluated
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Division:
    """How training videos that come without a split for validation are divided; see `hold_out.py`."""

    fraction: float = 0.2
    group: str | None = None
    folds: int | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Demands:
    """What is expected of the videos that are found.

    Attributes:
        expected_train, expected_val: how many videos there should be; None: whatever there is.
        allow_partial: other numbers are accepted.
        limit: of videos of a split, evenly spread.
        bad_list: paths that are known as broken.
        max_bad_fraction: of the training videos that may be broken, beside those of `bad_list`.
        inspect: whether the packets of all video files are looked at, with `timeout` seconds for each.
        keep_beside: whether the finding may be kept in the folder of the videos, see `broken_files`.
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


@dataclass
class Collected:
    """Videos by what they are for.

    Attributes:
        classes: names by id.
        splits: `train` (not in evaluation), `evaluate` (the test videos, or those for validation where there are no others),
            `validate` where that is another split.
        division: (path, class, group, split) of every video, where a part of the training videos is held out.
        counts: clips of each class by split, before broken ones are left out.
        notes: what somebody should know, a line each.
    """

    classes: list[str]
    splits: dict[str, Split]
    division: list[tuple[str, str, str, str]] = field(default_factory=list)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def collect(
    where: Where,
    division: Division,
    demands: Demands,
    *,
    trained: Trained | None = None,
    evaluation: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Finds the videos of a data set and checks them.

    Args:
        where: the files.
        division: for a data set without validation videos.
        demands: what is expected.
        trained: of the network that is evaluated; its classes are the ids of named ones.
        evaluation: training videos are not looked at.
        progress: called with (done, all) while files are inspected.

    Raises:
        UserError: missing, ambiguous or broken data.
    """
    found = find(where, known=trained.classes if trained else None, evaluation=evaluation)
    collected = Collected(found.classes, {}, notes=list(found.notes))
    (_for_evaluation if evaluation else _for_training)(collected, found, where, division, trained)
    splits = collected.splits
    if where.classes is not None and len(found.classes) != where.classes:
        raise UserError(f"{where.root}: {len(found.classes)} classes found, {where.classes} expected (dataset.classes)")
    for name, split in splits.items():
        look_up(split, where.videos, bad_list=demands.bad_list, keep_missing=name != "train")
    _compare_counts(splits, demands)
    for split in splits.values():
        if demands.limit is not None:
            split.records = split.records[:: -(-len(split.records) // demands.limit)]
    collected.counts = remarks.clips_of_classes(found.classes, splits)
    collected.notes += remarks.about_classes(found.classes, collected.counts) + remarks.about_rows(splits)
    if demands.inspect:
        if "train" in splits:
            collected.notes += remarks.about_copies(splits, where.videos)
        _inspect(splits, where.videos, demands, progress)
    if trained and (seen := [r for r in splits["evaluate"].records if r.path in trained.seen]):
        collected.notes.append(
            f"{len(seen)} of {len(splits['evaluate'].records)} evaluated videos have the path of a training video of the "
            f"checkpoint; the first: {printable(seen[0].path)}"
        )
    return collected


def _for_training(
    collected: Collected, found: Found, where: Where, division: Division, trained: Trained | None
) -> None:
    train, val, test = (found.splits.get(name) for name in ("train", "val", "test"))
    if val is not None:
        if division.folds is not None:
            raise UserError(f"dataset.folds divides one set, but {where.root} has videos for validation of its own")
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
            f"{where.root}: expected {LAYOUTS} with at least two classes of two videos; found {len(found.classes)} classes, "
            f"{len(train.records)} training and {len(val.records)} evaluation videos"
        )
    collected.splits = {"train": train, "evaluate": val if test is None else test}
    if test is not None:
        collected.splits["validate"] = val


def _for_evaluation(
    collected: Collected, found: Found, where: Where, division: Division, trained: Trained | None
) -> None:
    name, split = next((name, found.splits[name]) for name in ("test", "val", "train") if name in found.splits)
    if name == "train" and (trained is None or trained.same):
        _, split = _divide(collected, split, found, where, division)
        name = "held-out"
    elif name == "train":
        collected.notes.append(f"{where.root} has no split, and every video of it is evaluated")
    if not split.records:
        raise UserError(f"{where.root}: no {name} videos to evaluate")
    collected.splits = {"evaluate": split}


def _divide(collected: Collected, pool: Split, found: Found, where: Where, division: Division) -> tuple[Split, Split]:
    groups = None
    if division.group is not None:
        groups, remark = _groups(pool, found, division.group)
        collected.notes += [remark] if remark else []
    if division.folds is not None:
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
                f"none of the {split.listed} {names[name]} videos is there{first}; check dataset.root and dataset.videos"
            )
        if split.expected is not None and found != split.expected and not demands.allow_partial:
            raise UserError(
                f"{found} of {split.expected} expected {names[name]} videos found ({len(split.missing)} missing); "
                f"complete them, or accept with dataset.allow_partial=true"
            )


def _inspect(splits: dict[str, Split], videos: Path, demands: Demands, progress: Progress | None) -> None:
    """Fills `bad` of the splits; broken training videos no longer take part, others count as wrong."""
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
    if len(broken) > int(fraction * videos) or len(broken) == videos:
        path, reason = next(iter(broken.items()))
        raise UserError(
            f"{len(broken)} of {videos} training videos are unreadable, more than dataset.max_bad_fraction allows "
            f"({int(fraction * videos)}); the first: {printable(path)}: {reason}. `adafocus prepare check` names all of them "
            f"for dataset.bad_list"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_division(path: Path, rows: Collection[Sequence[str]]) -> None:
    """`split.csv`: who is on which side of a hold-out. It is a table that `dataset.train_list` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "group", "split"))
    writer.writerows(rows)
    path.write_bytes(encode(text.getvalue()))
