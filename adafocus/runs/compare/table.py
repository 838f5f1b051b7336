"""Reads the JSON files of run folders, and makes rows of a comparison from them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus.config.schema import GROUPS, RUNTIME
from adafocus.core.errors import UserError

#: Choices that never become a column, because they do not affect results.
_IGNORED = (*RUNTIME, "seed", "checkpoint", "published")
#: Groups that can be columns; the protocol has its own column.
_GROUPS = tuple(group for group in GROUPS if group != "protocol")
#: Keys of `dataset` that determine which videos are evaluated.
_DATA = (
    "name",
    "root",
    "videos",
    "val_list",
    "class_file",
    "task",
    "glyph_size",
    "visible",
    "tints",
    "decoys",
    "val_videos",
    "limit",
)
#: Rows of an early-exit run that are not points of its curve.
_WHOLE = ("full model", "whole frames")
SORTS = ("cost", "score", "train_seconds")


@dataclass
class Run:
    """The content of one run folder: until the run is finished `summary` is empty; `choices` are texts."""

    folder: Path
    state: str
    error: str
    seed: str = ""
    data: str = ""
    choices: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    #: Latency of a clip in seconds, of the fastest program that `adafocus benchmark` has measured.
    latency: float | None = None
    #: Curves of an early-exit run: criterion -> (cost, score) of its budgets, sorted by cost.
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass
class Row:
    """A row of a table: the average over runs that differ only in the seed."""

    choices: dict[str, str]
    runs: list[Run]
    variant: str = ""
    scores: list[float] = field(default_factory=list)
    cost: float | None = None

    @property
    def finished(self) -> bool:
        return bool(self.scores)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the score over the seeds; None for a single seed."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Early-exit curves of the first seed's run, by criterion."""
        return self.runs[0].curves if self.variant in ("", _WHOLE[0]) else {}


@dataclass
class Comparison:
    """A table: its rows, the keys in which they differ (`columns`), and the data and protocol that all share."""

    columns: list[str]
    rows: list[Row]
    metric: str = ""
    protocol: str = ""
    data: str = ""


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return ValueError


def read_run(folder: Path) -> Run:
    """Reads one run folder; with damaged files the run has the state "unreadable"."""
    files = {name: _read(folder / f"{name}.json") for name in ("status", "summary", "config", "choices", "benchmark")}
    broken = [name for name, value in files.items() if value is ValueError or not isinstance(value or {}, dict)]
    if broken:
        return Run(folder, "unreadable", f"{broken[0]}.json is damaged")
    status, summary, config = (files[name] or {} for name in ("status", "summary", "config"))
    state = "finished" if summary.get("state") == "finished" else str(status.get("state", "unknown"))
    try:
        run = Run(folder, state, str(status.get("error") or ""), seed=str(config.get("seed", "")), data=_data(config))
        run.choices = _choices(config, files["choices"] or summary.get("choices") or {})
        if state == "finished":
            run.summary = _checked(summary)
            if files["benchmark"]:
                run.latency = min(_number(one["latency"]) for one in files["benchmark"]["programs"])
            if config.get("mode") == "early_exit":
                _split_curves(run)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return Run(folder, "unreadable", "its files lack something or hold something else there")
    return run


def _checked(summary: dict[str, Any]) -> dict[str, Any]:
    """Checks and returns the entries of a summary that a comparison needs; raises if one is missing or wrong."""
    rows = [
        {"name": str(row["name"]), "score": _number(row["score"]), "cost": _number(row["cost"])}
        for row in summary.get("rows") or []
    ]
    data = (summary.get("data") or {}).get("evaluate") or {}
    return {
        "metric": str(summary.get("metric", "")),
        "protocol": str(summary.get("protocol", "")),
        "score": _number(summary["score"]),
        "cost": _number(summary["cost"]["total"]),
        "rows": rows,
        "parameters": int(_number(summary.get("parameters", 0))),
        "train_seconds": _number((summary.get("seconds") or {}).get("train", 0.0)),
        "data": {key: str(data[key]) for key in ("found", "expected", "listed", "unreadable") if data.get(key)},
    }


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _split_curves(run: Run) -> None:
    """Moves the budgets of an early-exit run from its rows to its curves."""
    for row in run.summary["rows"]:
        if row["name"] not in _WHOLE:
            criterion = row["name"].partition(" ")[0]
            run.curves.setdefault(criterion, []).append((float(row["cost"]), float(row["score"])))
    for points in run.curves.values():
        points.sort()
    run.summary["rows"] = [row for row in run.summary["rows"] if row["name"] in _WHOLE]


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Reads all run folders among and below `paths`, sorted by path."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder")
        for file in sorted([*path.rglob("status.json"), *path.rglob("summary.json")]):
            found[file.parent] = None
    return [read_run(folder) for folder in sorted(found)]


def _leaves(values: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {prefix: "" if values is None else str(values)}
    leaves: dict[str, str] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{prefix}.{key}" if prefix else key)
    return leaves


def _choices(config: dict[str, Any], choices: dict[str, Any]) -> dict[str, str]:
    leaves = {key: value for key, value in _leaves(config).items() if key.split(".")[0] not in _IGNORED}
    return {**{group: str(choices[group]) for group in _GROUPS if group in choices}, **leaves} if config else {}


def _data(config: dict[str, Any]) -> str:
    """Describes the evaluated videos as text."""
    dataset = config.get("dataset") or {}
    said = {key: dataset[key] for key in _DATA if dataset.get(key) not in (None, "", ".")}
    drawn = dataset.get("source") == "glyphs"
    return ", ".join(
        str(value) if key in ("name", "root", "task") else f"{key} {value}"
        for key, value in said.items()
        if drawn or key not in ("videos", "task", "glyph_size", "visible", "tints", "decoys", "val_videos")
    )


def _columns(choices: Sequence[dict[str, str]]) -> list[str]:
    """Returns the keys in which rows differ, without those that another key implies; groups come before their keys."""
    keys = list(dict.fromkeys(key for choice in choices for key in choice))
    columns: list[str] = []
    seen: set[tuple[int, ...]] = set()
    for key in sorted(keys, key=lambda key: (key not in _GROUPS, key.count("."), len(key))):
        values = [choice.get(key, "") for choice in choices]
        pattern = tuple(values.index(value) for value in values)
        if any(pattern) and pattern not in seen:
            seen.add(pattern)
            columns.append(key)
    return _without_implied(columns, choices)


def _without_implied(columns: list[str], choices: Sequence[dict[str, str]]) -> list[str]:
    """Removes keys whose values are determined by the columns before them."""
    kept: list[str] = []
    for column in columns:
        decided: dict[tuple[str, ...], set[str]] = {}
        for choice in choices:
            decided.setdefault(tuple(choice.get(key, "") for key in kept), set()).add(choice.get(column, ""))
        if any(len(values) > 1 for values in decided.values()):
            kept.append(column)
    return kept


def group(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs by evaluated videos, metric and protocol; unfinished runs join a group with the same data."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: not run.summary):
        key = (run.data, run.summary.get("metric", ""), run.summary.get("protocol", ""))
        if not run.summary:
            key = next((other for other in groups if other[0] == run.data), key)
        groups.setdefault(key, []).append(run)
    return [groups[key] for key in sorted(groups)]


def compare(runs: Sequence[Run], *, variants: bool = False, sort: str = "cost") -> Comparison:
    """Makes one table with rows averaged over seeds; if the protocols of the runs differ, the protocol is a column.

    Args:
        runs: all runs from `find_runs`, or one group of them.
        variants: whether to make a row for every evaluation variant (learned, random, centered patch, ...).
        sort: cost, score or train_seconds.

    Raises:
        UserError: an unknown sort key.
    """
    if sort not in SORTS:
        raise UserError(f"--sort {sort}: choose one of {', '.join(SORTS)}")
    finished = [run for run in runs if run.summary]
    metrics = {run.summary["metric"] for run in finished}
    protocols = {run.summary["protocol"] for run in finished}
    # Runs without a configuration are ignored when the differing choices are determined.
    described = [run.choices for run in runs if run.choices]
    columns = _columns(described) if described else []
    rows: dict[tuple[str, ...], Row] = {}
    for run in runs:
        choices = {column: run.choices.get(column, "") for column in columns}
        if len(protocols) > 1:
            choices["protocol"] = run.summary.get("protocol", "")
        answers = (run.summary.get("rows") if variants else None) or [{}]
        for answer in answers:
            variant = answer.get("name", "")
            # An unfinished run has its own row, because it has no score to average.
            key = (*choices.values(), variant, "" if run.summary else str(run.folder))
            if key in rows and any(run.seed == other.seed for other in rows[key].runs):
                key = (*key, str(run.folder))  # the same configuration and seed in two folders are not averaged
            row = rows.setdefault(key, Row(choices, [], variant))
            row.runs.append(run)
            if run.summary:
                row.scores.append(float(answer.get("score", run.summary["score"])))
                row.cost = float(answer.get("cost", run.summary["cost"]))
    if len(protocols) > 1:
        columns = [*columns, "protocol"]
    ordered = sorted(rows.values(), key=lambda row: _rank(row, sort))
    metric, protocol = ("".join(found) if len(found) == 1 else "" for found in (metrics, protocols))
    data = {run.data for run in runs}
    return Comparison(columns, ordered, metric, protocol, "".join(data) if len(data) == 1 else "")


def _rank(row: Row, sort: str) -> tuple:
    if not row.finished:
        return (1, str(row.runs[0].folder))
    value = {"cost": row.cost, "score": -row.mean, "train_seconds": mean_seconds(row)}[sort]
    return (0, value, -row.mean)


def mean_seconds(row: Row) -> float:
    return statistics.fmean(run.summary["train_seconds"] for run in row.runs)


def best_exit(points: Sequence[tuple[float, float]], score: float) -> tuple[float, float]:
    """Returns the cheapest point of an early-exit curve that reaches `score`, or else the point with the best score."""
    reaching = [point for point in points if point[1] >= score]
    return min(reaching) if reaching else max(points, key=lambda point: (point[1], -point[0]))
