"""Writes a comparison as text, Markdown, CSV and a plot. Text from run folders is escaped."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adafocus.core.errors import printable
from adafocus.runs.compare.table import Comparison, Row, best_exit, mean_seconds

EARLY = "leaves early by"


def human(count: float) -> str:
    """Formats a number of multiply-adds with its unit, such as 12.3 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f}"


def _completeness(row: Row) -> str:
    """Formats the number of evaluation videos that were found and that were expected as `found/expected`."""
    data = row.runs[0].summary["data"]
    if "found" not in data:
        return ""
    unreadable = f", {data['unreadable']} unreadable" if "unreadable" in data else ""
    return f"{data['found']}/{data.get('expected') or data.get('listed', data['found'])}{unreadable}"


def _exit(row: Row) -> str:
    """Formats the best point of an early-exit run: score, share of the full model's cost, and multiply-adds."""
    if not row.curves or not row.cost:
        return ""
    points = [point for points in row.curves.values() for point in points]
    cost, score = best_exit(points, row.mean)
    return f"{score:.1f} at {100 * cost / row.cost:.0f} % ({human(cost)})"


def _latency(row: Row) -> str:
    """Returns the milliseconds of a clip, of the first run that was measured; a control is not measured."""
    found = [run.latency for run in row.runs if run.latency is not None]
    return f"{1000 * found[0]:.1f}" if found and row.variant in ("", row.runs[0].summary["rows"][0]["name"]) else ""


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the table as text."""
    shown = any(row.variant for row in comparison.rows)
    exits = any(row.curves for row in comparison.rows)
    timed = any(run.latency is not None for row in comparison.rows for run in row.runs)
    named = (
        not comparison.columns and not shown and len(comparison.rows) > 1
    )  # if the rows differ in no choice, the folders name them
    header = [
        *comparison.columns,
        *(["looks at"] if shown else []),
        f"score ({comparison.metric})" if comparison.metric else "score",
        "seeds",
    ]
    header += [
        "multiply-adds",
        *(["ms a clip"] if timed else []),
        *(["early exit"] if exits else []),
        "parameters",
        "train s",
        "evaluated on",
        "state",
    ]
    if named:
        header = ["run", *header]
    table = []
    for row in comparison.rows:
        start = [row.choices.get(column, "") for column in comparison.columns] + ([row.variant] if shown else [])
        if named:
            start = [row.runs[0].folder.name, *start]
        if not row.finished:
            run = row.runs[0]
            reason = f"{run.state}: {run.error}" if run.error else run.state
            empty = [""] * (len(header) - len(start) - 1)
            table.append([*start, *empty, f"{reason} ({run.folder.name})"])
            continue
        deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
        middle = [f"{row.mean:.2f}{deviation}", str(len(row.scores)), human(row.cost or 0)]
        middle += [_latency(row)] if timed else []
        middle += [_exit(row)] if exits else []
        parameters = f"{row.runs[0].summary['parameters']:,}"
        table.append([*start, *middle, parameters, f"{mean_seconds(row):.0f}", _completeness(row), "finished"])
    header, *table = ([printable(cell.replace("\n", " ")) for cell in line] for line in (header, *table))
    return header, table


def _about(comparison: Comparison) -> list[str]:
    """Returns lines with the data and the protocol that all rows of a table share."""
    said = (("data", comparison.data), ("protocol", comparison.protocol))
    return [f"{name}: {printable(value)}" for name, value in said if value]


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """Returns a Markdown table for each comparison; text from run folders is escaped."""
    lines: list[str] = []
    for comparison in comparisons:
        header, table = cells(comparison)
        lines += [*(part for line in _about(comparison) for part in (literal(line), ""))]
        for line in (map(literal, header), ["---"] * len(header), *(map(literal, line) for line in table)):
            lines.append("| " + " | ".join(line) + " |")
        lines.append("")
    return "\n".join(lines)


def literal(text: str) -> str:
    """Escapes text so that neither Markdown nor HTML interprets any of it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)


def to_csv(comparison: Comparison) -> str:
    """Returns unrounded numbers as CSV, one line per row; text that a spreadsheet would run as a formula is escaped."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    numbers = ["score_mean", "score_std", "seeds", "cost", "parameters", "train_seconds"]
    header = [*comparison.columns, "variant", "metric", *numbers, "state", "error", "folders"]
    writer.writerow([_inert(cell) for cell in header])
    for row in comparison.rows:
        run = row.runs[0]
        start = [row.choices.get(column, "") for column in comparison.columns] + [row.variant]
        folders = " ".join(str(run.folder) for run in row.runs)
        if row.finished:
            deviation = "" if row.deviation is None else row.deviation
            values = [row.mean, deviation, len(row.scores), int(row.cost or 0), run.summary["parameters"]]
            values = [run.summary["metric"], *values, mean_seconds(row), "finished", ""]
        else:
            values = [*[""] * (1 + len(numbers)), run.state, run.error]
        writer.writerow([_inert(cell) for cell in (*start, *values, folders)])
    return file.getvalue()


def _inert(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if re.match(r"[=+\-@]", text) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text) else text


def to_text(comparisons: Sequence[Comparison]) -> str:
    """Returns a table with aligned columns for each comparison."""
    tables = []
    for comparison in comparisons:
        header, table = cells(comparison)
        widths = [max(len(line[place]) for line in (header, *table)) for place in range(len(header))]
        lines = _about(comparison)
        for line in (header, ["-" * width for width in widths], *table):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the Pareto front of points (cost, score), sorted by cost: no point at most as expensive scores higher."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Plots score against cost with deviations and Pareto front as PNG, a panel per comparison; early exit is a line.

    At least one row must be finished.
    """
    panels = [
        (comparison, rows) for comparison in comparisons if (rows := [row for row in comparison.rows if row.finished])
    ]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The legend has a line for each row, in 7 points; a panel is at least as high as its legend.
    heights = [max(3.8, 0.16 * (len(rows) + sum(len(row.curves) for row in rows)) + 1.0) for _, rows in panels]
    figure = Figure(figsize=(9, sum(heights)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    subplots = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (comparison, rows) in zip(subplots, panels, strict=True):
        _panel(axes, comparison, rows)
    figure.savefig(path, format="png")


def _panel(axes: Any, comparison: Comparison, rows: Sequence[Row]) -> None:
    """Plots one comparison with numbered points, which the legend names, so that labels do not overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    points = [(row.cost or 0.0, row.mean) for row in rows]
    front = pareto(points)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color="0.6", linewidth=1, zorder=1, label="Pareto front")
    for number, (row, (cost, mean)) in enumerate(zip(rows, points, strict=True), start=1):
        names = [row.choices.get(column, "") for column in comparison.columns]
        label = ", ".join(filter(None, [*names, row.variant])) or row.runs[0].folder.name
        label = f"{number}  {_short(label)}"
        drawn = axes.errorbar(cost, mean, yerr=row.deviation, fmt="o", markersize=10, capsize=3, label=label, zorder=2)
        axes.annotate(str(number), (cost, mean), ha="center", va="center", fontsize=6, color="white", zorder=3)
        for criterion, curve in row.curves.items():
            color = drawn.lines[0].get_color()
            style = "-" if criterion == next(iter(row.curves)) else "--"
            label = f"{number}  {EARLY} {_short(criterion)}"
            axes.plot(*zip(*curve, strict=True), style, color=color, linewidth=1, zorder=1, label=label)
    costs = [cost for cost, _ in points] + [cost for row in rows for curve in row.curves.values() for cost, _ in curve]
    if min(costs) > 0 and max(costs) > 4 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("multiply-adds per video")
    axes.set_ylabel(f"{printable(comparison.metric) or 'score'} (%)".replace("$", r"\$"))
    title = [", ".join(comparison.columns), *_about(comparison)]
    axes.set_title("\n".join(_short(line, 100) for line in title if line), fontsize=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: _place(pair[1]))
    axes.legend(
        *zip(*named, strict=True),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        fontsize=7,
        frameon=False,
    )


def _short(text: str, length: int = 48) -> str:
    """Shortens text for a plot to `length` and escapes dollar signs, between which matplotlib reads mathematics."""
    text = printable(text)
    return (text if len(text) <= length else f"{text[: length - 3]}...").replace("$", r"\$")


def _place(label: str) -> tuple[float, bool]:
    """Returns the sort key of a legend entry: by number, points before lines; entries without a number come last."""
    number, _, text = label.partition("  ")
    return (float(number), text.startswith(EARLY)) if number.isdigit() else (math.inf, False)
