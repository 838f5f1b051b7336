"""Splits training videos into training and validation, by a hash of the path or in folds; groups stay together."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from zlib import crc32

import numpy as np

from adafocus.core.errors import UserError
from adafocus.data.annotations import Record, Split
from adafocus.data.paths import encode, printable

_PASSES = 20  # maximal number of passes over all groups to improve the balance
_ORDERS, _TRIED = 20, 5000  # maximal number of orders of the groups that are tried, and of groups over all orders


def hold_out(split: Split, fraction: float, groups: Sequence[str] | None = None) -> tuple[Split, Split]:
    """Returns (train, validation) with a share of each class for validation, chosen by a hash of the path.

    Without groups the choice depends on the path alone, so adding videos does not move others; a class of two or more
    videos always has one on each side.

    Args:
        split: all videos.
        fraction: share of each class for validation.
        groups: the group of each record; a group is never divided, and the shares are met as well as the groups allow.
            None: no groups.
    """
    if groups is not None:
        parts = _balanced(split.records, groups, np.array([1 - fraction, fraction]))
        return _two_sides(split, parts == 1)
    chosen = np.zeros(len(split.records), bool)
    for places in _by_class(split.records).values():
        count = min(max(1, round(fraction * len(places))), len(places) - 1)
        chosen[places[:count]] = True
    return _two_sides(split, chosen)


def fold_out(split: Split, folds: int, fold: int, groups: Sequence[str] | None = None) -> tuple[Split, Split]:
    """Returns (train, validation) for one fold of cross-validation, in which the classes have equal shares.

    Args:
        split: all videos.
        folds: number of parts.
        fold: index of the part for validation.
        groups: the group of each record; a group is never divided. None: no groups.

    Raises:
        UserError: there are fewer videos or groups than folds.
    """
    units = len(set(groups)) if groups is not None else len(split.records)
    if units < folds:
        what = "groups" if groups is not None else "videos"
        raise UserError(f"dataset.folds={folds}: there are only {units} {what}; choose fewer folds")
    if groups is not None:
        return _two_sides(split, _balanced(split.records, groups, np.full(folds, 1 / folds)) == fold)
    parts, first = np.empty(len(split.records), int), 0
    for places in _by_class(split.records).values():
        parts[places] = (first + np.arange(len(places))) % folds
        first += len(places)  # so that the folds are of one size
    return _two_sides(split, parts == fold)


def _by_class(records: Sequence[Record]) -> dict[Hashable, list[int]]:
    """Returns the indices of the records of each class, ordered by a hash of their paths."""
    found: dict[Hashable, list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault(record.labels, []).append(place)
    return {key: sorted(places, key=lambda place: crc32(encode(records[place].path))) for key, places in found.items()}


def _two_sides(split: Split, chosen: np.ndarray) -> tuple[Split, Split]:
    sides = []
    for side in (~chosen, chosen):
        records = [split.records[int(place)] for place in np.flatnonzero(side)]
        sides.append(Split(sorted(records, key=lambda record: record.path), len(records)))
    return sides[0], sides[1]


def _balanced(records: Sequence[Record], groups: Sequence[str], targets: np.ndarray) -> np.ndarray:
    """Returns the part (index) of each record, with undivided groups and the target shares of the classes in each part.

    Starting with the largest, each group goes to the part where it improves the balance most; then single groups are
    moved as long as that helps. This is repeated for several orders of groups of equal size, and the best result is
    returned. A part that lacks a class, although the class has enough groups for all parts, costs as much as the worst
    share.
    """
    names = sorted(set(groups))
    classes = sorted({record.labels for record in records})
    rows, columns = ({value: number for number, value in enumerate(values)} for values in (names, classes))
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, ([rows[group] for group in groups], [columns[record.labels] for record in records]), 1)
    counts = np.concatenate(
        [counts, counts.sum(1, keepdims=True)], 1
    )  # the total sizes of the parts are balanced as well
    shares, sizes = counts / counts.sum(0), counts[:, -1]
    enough = (counts > 0).sum(0) >= len(targets)

    def cost(part: np.ndarray) -> np.ndarray:
        """Cost of shares (..., parts, classes): the deviation from the targets."""
        return ((part - targets[:, None]) ** 2 + ((part <= 1e-9) & enough)).sum((-1, -2))

    outcomes = []
    for salt in range(max(1, min(_ORDERS, _TRIED // len(names)))):
        hashes = np.array([crc32(encode(f"{salt} {name}")) for name in names])
        order = np.lexsort((hashes, -sizes))
        outcomes.append(_placed(shares, order, len(targets), cost))
    parts = min(outcomes, key=lambda outcome: outcome[0])[1]
    return parts[[rows[group] for group in groups]]


def _placed(
    shares: np.ndarray, order: np.ndarray, count: int, cost: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, np.ndarray]:
    """Assigns groups with these shares of the classes to `count` parts in this order; returns cost and parts."""
    parts, places = np.full(len(shares), -1), np.arange(count)
    held = np.zeros((count, shares.shape[1]))
    for turn in range(_PASSES):
        moved = False
        for number in order:
            if parts[number] >= 0:
                held[parts[number]] -= shares[number]
            tried = np.repeat(held[None], count, 0)
            tried[places, places] += shares[number]
            costs = cost(tried)
            best = int(costs.argmin())
            if parts[number] < 0 or costs[best] < costs[parts[number]] - 1e-9:
                moved, parts[number] = True, best
            held[parts[number]] += shares[number]
        if turn and not moved:
            break
    return round(float(cost(held)), 9), parts


def groups_of(
    split: Split, by: str, columns: Sequence[str], classes_below: Sequence[str] | None
) -> tuple[list[str], str]:
    """Returns the group of each record, and a remark for the log ("" if there is none).

    Args:
        split: the videos; `Record.group` is set if `by` is a column of their table.
        by: a column of the table, `parent` for the folder that the video is in, or a regular expression with one group
            that is searched in the file's name.
        columns: names of the table's columns; empty if there is no table.
        classes_below: for class folders, the folders (relative to the root) that the classes are in: `parent` is then
            the first folder below the class.

    Raises:
        UserError: `by` is none of these, or applies to no video, or the groups are the same as the classes.
    """
    records = split.records
    if by in columns:
        found = [record.group or None for record in records]
    elif by == "parent":
        found = [_parent(record.path, classes_below) for record in records]
    else:
        pattern = _pattern(by, columns)
        matches = [pattern.search(PurePosixPath(record.path).name) for record in records]
        found = [match and match.group(1) for match in matches]
    alone = [record.path for record, group in zip(records, found, strict=True) if not group]
    if len(alone) == len(records):
        raise UserError(f"dataset.group={by} matches no video, of which the first is {printable(records[0].path)}")
    groups = [group or f"\0{record.path}" for record, group in zip(records, found, strict=True)]
    pairs = {(group, record.labels) for record, group in zip(records, groups, strict=True)}
    labels = {record.labels for record in records}
    if len(set(groups)) == len(pairs) == len(labels):
        raise UserError(
            f"dataset.group={by}: the groups equal the classes, so no class can be in both splits; choose another"
        )
    remark = ""
    if alone:
        remark = (
            f"dataset.group={by} does not apply to {len(alone)} videos; each is a group of its own; the "
            f"first: {alone[0]}"
        )
    return groups, printable(remark)


def _parent(path: str, classes_below: Sequence[str] | None) -> str | None:
    folders = PurePosixPath(path).parts[:-1]
    if classes_below is None:
        return folders[-1] if folders else None
    for below in classes_below:
        prefix = PurePosixPath(below).parts
        if folders[: len(prefix)] == prefix:
            inner = folders[len(prefix) + 1 :]
            return inner[0] if inner else None
    return None


def _pattern(by: str, columns: Sequence[str]) -> re.Pattern[str]:
    known = f"a column ({', '.join(columns)}), " if columns else "a column of a table (there is none), "
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UserError(f"dataset.group={by} must be {known}`parent`, or a regular expression ({error})") from error
    if pattern.groups != 1:
        raise UserError(
            f"dataset.group={by} must be {known}`parent`, or a regular expression with one group, such as "
            f"'^(person\\d+)_'"
        )
    return pattern


def straddling(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the groups that are in more than one split, sorted; `groups` maps names of splits to their groups."""
    sides: dict[str, int] = {}
    for names in groups.values():
        for name in set(names):
            sides[name] = sides.get(name, 0) + 1
    return sorted(name for name, count in sides.items() if count > 1)
