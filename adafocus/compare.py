"""Comparison of run folders: table, CSV, Markdown and a plot of score against cost. Imports no torch and reads only JSON."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus.errors import UserError

#: Choices that do not make another experiment: they never become a column.
_IGNORED = ("name", "seed", "device", "devices", "inline", "loader", "output", "checkpoint", "mode")
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
        variants: a row for every answer of a run (learned, random, centred patch ...).
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


def _rank(row: Row, sort: str) -> tuple:
    if not row.finished:
        return (1, str(row.runs[0].folder))
    value = {"cost": row.cost, "score": -row.mean, "train_seconds": _seconds(row)}[sort]
    return (0, value, -row.mean)


def _seconds(row: Row) -> float:
    return statistics.fmean(run.summary.get("seconds", {}).get("train", 0.0) for run in row.runs)


def human(count: float) -> str:
    """A number of multiply-adds with its unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f}"


def _completeness(row: Row) -> str:
    """Evaluation videos found of those expected."""
    data = row.runs[0].summary.get("data", {}).get("evaluate", {})
    found, expected = data.get("found"), data.get("expected") or data.get("listed")
    if found is None:
        return ""
    unreadable = data.get("unreadable") or 0
    return f"{found}/{expected}" + (f", {unreadable} unreadable" if unreadable else "")


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The table as text: header and rows."""
    shown = any(row.variant for row in comparison.rows)
    header = [*comparison.columns, *(["looks at"] if shown else []), f"score ({comparison.metric or 'mixed'})", "seeds"]
    header += ["multiply-adds", "parameters", "train s", "evaluated on", "state"]
    table = []
    for row in comparison.rows:
        start = [row.choices.get(column, "") for column in comparison.columns] + ([row.variant] if shown else [])
        if not comparison.columns and len(comparison.rows) > 1:
            start = [row.runs[0].folder.name, *start]
        if not row.finished:
            run = row.runs[0]
            reason = f"{run.state}: {run.error}" if run.error else run.state
            table.append([*start, "", "", "", "", "", "", f"{reason} ({run.folder.name})"])
            continue
        deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
        table.append(
            [
                *start,
                f"{row.mean:.2f}{deviation}",
                str(len(row.scores)),
                human(row.cost or 0),
                f"{row.runs[0].summary.get('parameters', 0):,}",
                f"{_seconds(row):.0f}",
                _completeness(row),
                "finished",
            ]
        )
    if not comparison.columns and len(comparison.rows) > 1:
        header = ["run", *header]
    return header, table


def to_markdown(comparison: Comparison) -> str:
    header, table = cells(comparison)
    lines = [f"Protocol: {comparison.protocol}", ""] if comparison.protocol else []
    for line in (header, ["---"] * len(header), *table):
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |")
    return "\n".join(lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Raw numbers, one line for each averaged configuration."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *comparison.columns,
            "variant",
            "score_mean",
            "score_std",
            "seeds",
            "cost",
            "parameters",
            "train_seconds",
            "state",
            "error",
            "folders",
        ]
    )
    for row in comparison.rows:
        start = [row.choices.get(column, "") for column in comparison.columns] + [row.variant]
        folders = " ".join(str(run.folder) for run in row.runs)
        if row.finished:
            numbers = [row.mean, "" if row.deviation is None else row.deviation, len(row.scores), int(row.cost or 0)]
            writer.writerow(
                [*start, *numbers, row.runs[0].summary.get("parameters", ""), _seconds(row), "finished", "", folders]
            )
        else:
            writer.writerow([*start, *[""] * 6, row.runs[0].state, row.runs[0].error, folders])
    return file.getvalue()


def to_text(comparison: Comparison) -> str:
    """Aligned columns for a terminal or a pipe."""
    header, table = cells(comparison)
    widths = [max(len(line[place]) for line in (header, *table)) for place in range(len(header))]
    lines = [f"protocol: {comparison.protocol}"] if comparison.protocol else []
    for line in (header, ["-" * width for width in widths], *table):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return "\n".join(lines) + "\n"


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, score) that no cheaper or equally cheap point beats, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def plot(comparison: Comparison, path: Path) -> bool:
    """Score against cost with deviations and Pareto front, as PNG; False where nothing is finished."""
    rows = [row for row in comparison.rows if row.finished and row.cost]
    if not rows:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), dpi=130, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    points = [(float(row.cost), row.mean) for row in rows]
    axes.step(*zip(*pareto(points), strict=True), where="post", color="0.6", linewidth=1, zorder=1)
    for row, (cost, mean) in zip(rows, points, strict=True):
        axes.errorbar(cost, mean, yerr=row.deviation, fmt="o", capsize=3, zorder=2)
        label = ", ".join(
            [*(row.choices.get(column, "") for column in comparison.columns), *filter(None, [row.variant])]
        )
        axes.annotate(label, (cost, mean), xytext=(6, 5), textcoords="offset points", fontsize=8)
    costs = [cost for cost, _ in points]
    if max(costs) > 4 * min(costs):
        axes.set_xscale("log")
    axes.margins(x=0.2, y=0.15)
    axes.set_xlabel("multiply-adds a video")
    axes.set_ylabel(f"{comparison.metric or 'score'} (%)")
    axes.set_title(", ".join(comparison.columns) or comparison.protocol, fontsize=9)
    axes.xaxis.set_major_formatter(_formatter(human))
    axes.grid(alpha=0.3)
    part = path.with_name(path.name + ".part.png")
    figure.savefig(part)
    os.replace(part, path)
    return True


def _formatter(text: Callable[[float], str]) -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: text(value) if math.isfinite(value) else "")


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_comparison(folder: Path) -> Comparison:
    """(Re)writes compare.md, compare.csv and compare.png of all runs below a folder, as after each job of a sweep."""
    comparison = compare(find_runs([folder]), mix_protocols=True)
    _write(folder / "compare.md", to_markdown(comparison))
    _write(folder / "compare.csv", to_csv(comparison))
    plot(comparison, folder / "compare.png")
    return comparison


def main(argv: Sequence[str]) -> int:
    """`adafocus compare PATH... [options]`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="adafocus compare", description="Table of runs: score, cost, what differs.")
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, or folders that hold them at any depth")
    parser.add_argument("--csv", type=Path, help="write raw numbers")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument("--plot", type=Path, help="write a PNG of score against cost")
    parser.add_argument("--rows", action="store_true", help="a row for every answer of a run (random patch, ...)")
    parser.add_argument("--mix-protocols", action="store_true", help="compare scores that were measured differently")
    parser.add_argument("--sort", default="cost", help=", ".join(SORTS))
    options = parser.parse_args(argv)
    comparison = compare(
        find_runs(options.paths), mix_protocols=options.mix_protocols, variants=options.rows, sort=options.sort
    )
    sys.stdout.write(to_text(comparison))
    if options.csv:
        _write(options.csv, to_csv(comparison))
    if options.markdown:
        _write(options.markdown, to_markdown(comparison))
    if options.plot and not plot(comparison, options.plot):
        raise UserError("nothing to plot: no run is finished")
    return 0
