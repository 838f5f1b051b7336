"""Run folders as data: what their JSON files say, and which choices tell them apart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError

#: Choices that do not make another experiment: they never become a column.
_IGNORED = ("name", "seed", "device", "devices", "inline", "loader", "output", "checkpoint", "published")
_GROUPS = ("dataset", "method", "backbone", "patch", "segments", "stage", "schedule")
SORTS = ("cost", "score", "train_seconds")


@dataclass
class Run:
    """One run folder: what its files say. `summary` is empty until it is finished."""

    folder: Path
    state: str
    error: str
    config: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass
class Row:
    """Runs that differ in nothing but the seed."""

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
        """Sample standard deviation over the seeds; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass
class Comparison:
    """Rows and the names of the choices that tell them apart."""

    columns: list[str]
    rows: list[Row]
    metric: str = ""
    protocol: str = ""


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, OSError, UnicodeDecodeError):
        return ValueError


def read_run(folder: Path) -> Run:
    """One folder; broken files make a run of state "unreadable", never an exception."""
    files = {name: _read(folder / f"{name}.json") for name in ("status", "summary", "config", "choices")}
    broken = [name for name, value in files.items() if value is ValueError or not isinstance(value or {}, dict)]
    if broken:
        return Run(folder, "unreadable", f"{broken[0]}.json is damaged")
    status, summary = files["status"] or {}, files["summary"] or {}
    state = "finished" if summary.get("state") == "finished" else str(status.get("state", "unknown"))
    choices = files["choices"] or summary.get("choices") or {}
    return Run(
        folder,
        state,
        str(status.get("error") or ""),
        files["config"] or {},
        choices,
        summary if state == "finished" else {},
    )


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Run folders among and below `paths`, in order of their paths."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder")
        for file in sorted([*path.rglob("status.json"), *path.rglob("summary.json")]):
            found[file.parent] = None
    if not found:
        raise UserError(f"no runs below {', '.join(map(str, paths))}")
    return [read_run(folder) for folder in sorted(found)]


def _leaves(values: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {prefix: "" if values is None else str(values)}
    leaves: dict[str, str] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{prefix}.{key}" if prefix else key)
    return leaves


def _choices(run: Run) -> dict[str, str]:
    leaves = {key: value for key, value in _leaves(run.config).items() if key.split(".")[0] not in _IGNORED}
    return {**{group: str(run.choices[group]) for group in _GROUPS if group in run.choices}, **leaves}


def _columns(choices: Sequence[dict[str, str]]) -> list[str]:
    """Keys whose value differs, without those that only repeat another one; a group's choice comes before its leaves."""
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
    """Leaves out leaves that the columns before them already decide."""
    kept: list[str] = []
    for column in columns:
        decided: dict[tuple[str, ...], set[str]] = {}
        for choice in choices:
            decided.setdefault(tuple(choice.get(key, "") for key in kept), set()).add(choice.get(column, ""))
        if any(len(values) > 1 for values in decided.values()):
            kept.append(column)
    return kept


def compare(
    runs: Sequence[Run], *, mix_protocols: bool = False, variants: bool = False, sort: str = "cost"
) -> Comparison:
    """Runs as rows, seeds averaged.

    Args:
        runs: what `find_runs` found.
        mix_protocols: allow scores that were measured differently in one table; the protocol becomes a column.
        variants: a row for every answer of a run (learned, random, centered patch ...).
        sort: cost, score or train_seconds.

    Raises:
        UserError: scores that cannot be compared, or an unknown sort key.
    """
    if sort not in SORTS:
        raise UserError(f"--sort {sort}: choose one of {', '.join(SORTS)}")
    finished = [run for run in runs if run.summary]
    kinds = sorted({(str(run.summary.get("metric")), str(run.summary.get("protocol"))) for run in finished})
    if len(kinds) > 1 and not mix_protocols:
        listed = "; ".join(f"{metric}: {protocol}" for metric, protocol in kinds)
        raise UserError(
            f"these scores were measured in different ways and cannot be compared ({listed}); --mix-protocols does it all the same"
        )
    # Runs that never got a configuration say nothing about what differs.
    described = [_choices(run) for run in runs if run.config]
    columns = _columns(described) if described else []
    rows: dict[tuple[str, ...], Row] = {}
    for run in runs:
        choices = {column: _choices(run).get(column, "") for column in columns}
        if len(kinds) > 1:
            choices["protocol"] = str(run.summary.get("protocol", ""))
        answers = run.summary.get("rows", []) if variants else [{}]
        for answer in answers if run.summary else [{}]:
            variant = str(answer.get("name", ""))
            # An unfinished run stands alone: it has no score to average.
            key = (*choices.values(), variant, "" if run.summary else str(run.folder))
            if key in rows and any(_seed(run) == _seed(other) for other in rows[key].runs):
                key = (*key, str(run.folder))  # the same run a second time is no second seed
            row = rows.setdefault(key, Row(choices, [], variant))
            row.runs.append(run)
            if run.summary:
                row.scores.append(float(answer.get("score", run.summary["score"])))
                row.cost = float(answer.get("cost", run.summary["cost"]["total"]))
    if len(kinds) > 1:
        columns = [*columns, "protocol"]
    ordered = sorted(rows.values(), key=lambda row: _rank(row, sort))
    metric, protocol = kinds[0] if len(kinds) == 1 else ("", "")
    return Comparison(columns, ordered, metric, protocol)


def _seed(run: Run) -> object:
    return run.config.get("seed")


def _rank(row: Row, sort: str) -> tuple:
    if not row.finished:
        return (1, str(row.runs[0].folder))
    value = {"cost": row.cost, "score": -row.mean, "train_seconds": mean_seconds(row)}[sort]
    return (0, value, -row.mean)


def mean_seconds(row: Row) -> float:
    return statistics.fmean(run.summary.get("seconds", {}).get("train", 0.0) for run in row.runs)
