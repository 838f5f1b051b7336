"""A comparison as text, Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adafocus.compare.table import Comparison, Row, mean_seconds


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
    named = not comparison.columns and not shown and len(comparison.rows) > 1  # nothing else tells the rows apart
    header = [*comparison.columns, *(["looks at"] if shown else []), f"score ({comparison.metric or 'mixed'})", "seeds"]
    header += ["multiply-adds", "parameters", "train s", "evaluated on", "state"]
    table = []
    for row in comparison.rows:
        start = [row.choices.get(column, "") for column in comparison.columns] + ([row.variant] if shown else [])
        if named:
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
                f"{mean_seconds(row):.0f}",
                _completeness(row),
                "finished",
            ]
        )
    if named:
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
                [
                    *start,
                    *numbers,
                    row.runs[0].summary.get("parameters", ""),
                    mean_seconds(row),
                    "finished",
                    "",
                    folders,
                ]
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
