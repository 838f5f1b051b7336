"""Prints the tables at the end of a run; needs no torch, so that a finished run is shown without delay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adafocus.core.errors import UserError, printable
from adafocus.evaluation.exit_rule import best_budget

NAMES = {"top1": "top-1 %", "map": "mAP %"}


def multiply_adds(count: float) -> str:
    """Formats a number of multiply-adds (MACs) with its unit, such as 26.957 G or 12.3 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"


def _text(value: object) -> Text:
    """Makes plain text for rich: markup is not interpreted, and control codes are escaped."""
    return Text(printable(value))


def _say(console: Console, line: str) -> None:
    console.print(_text(line), soft_wrap=True)


def show(folder: Path, summary: dict[str, Any], console: Console | None = None) -> None:
    """Prints score and multiply-adds of every variant, and the names of the written files.

    Raises:
        UserError: the summary is incomplete.
    """
    console = console or Console()
    try:
        table, lines = _summary(folder, summary)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}/summary.json is damaged; delete it and repeat the command, which writes it again"
        ) from error
    console.print(table)
    for line in lines:
        _say(console, line)


def _summary(folder: Path, summary: dict[str, Any]) -> tuple[Table, list[str]]:
    table = Table(title=_text(summary["protocol"]), title_justify="left")
    table.add_column("looks at")
    table.add_column(_text(NAMES.get(summary["metric"], summary["metric"])), justify="right")
    table.add_column("multiply-adds per video", justify="right")
    for row in summary["rows"]:
        table.add_row(_text(row["name"]), f"{row['score']:.1f}", multiply_adds(row["cost"]))
    lines = [conclude(summary)]
    if found := summary.get("places"):
        lines += [places_line(found), *([f"note: {found['warning']}"] if found["warning"] else [])]
    lines += [
        f"stage {gain['stage']}: {gain['answer']} {gain['score']:.1f}, {gain['seconds']:.0f} s"
        for gain in summary.get("stages") or []
    ]
    if unreadable := (summary.get("data") or {}).get("evaluate", {}).get("unreadable"):
        lines.append(f"{unreadable} evaluation videos could not be read and count as wrong (summary.json names them)")
    if summary.get("picture"):
        lines.append(f"picture: {folder / summary['picture']}")
    if (page := folder / "report.html").is_file():
        lines.append(f"report: {page}")
    return table, [*lines, f"run folder: {folder}"]


def conclude(summary: dict[str, Any]) -> str:
    """One sentence that says what came out: the method's score and cost, and by how much it leads its best control."""
    main, *controls = summary["rows"]
    said = f"{main['score']:.1f} {_unit(summary['metric'])}"
    if whole := summary.get("cost_whole_frames"):
        said += f" at {100 * main['cost'] / whole:.0f} % of the multiply-adds of whole frames"
    else:
        said += f" at {multiply_adds(main['cost'])} multiply-adds per video"
    if controls:
        best = max(controls, key=lambda row: row["score"])
        said += f"; {main['score'] - best['score']:+.1f} points against {best['name']}"
        if (behind := best.get("behind")) is not None:
            said += f" (95 % interval {behind[0]:+.1f} to {behind[1]:+.1f})"
    return said


def _unit(metric: str) -> str:
    return "mAP" if metric == "map" else "% top-1" if metric == "top1" else f"% {metric}"


def places_line(places: dict[str, Any]) -> str:
    """Returns variation and area of the learned patches as one line of text."""
    frames = places["spread_frames"]
    over_frames = "" if frames is None else f", {frames:.3f} over the frames of a clip"
    areas = " / ".join(f"{100 * places[f'area_{kind}']:.0f}" for kind in ("min", "median", "max"))
    held, away = "", ""
    if places.get("moving") is not None:
        held = f"; {100 * places['moving']:.0f} % of the motion in {100 * places['covered']:.0f} % of the area"
        if places.get("moving_constant") is not None:
            held += f" (at the constant location {100 * places['moving_constant']:.0f} %)"
    if places.get("from_constant") is not None:
        away = f"; {places['from_constant']:.2f} of the frame's side from the constant location"
    return (
        f"learned patch locations: standard deviation {places['spread_clips']:.3f} over clips{over_frames} (of the "
        f"largest offset); area {areas} % of the frame (min / median / max){held}{away}"
    )


def show_cost(cost: dict[str, Any], segments: int, console: Console | None = None) -> None:
    """Prints the multiply-adds (MACs) per video and per frame of each part of the network."""
    table = Table(title="multiply-adds", title_justify="left")
    for title in ("part", "a video", "a frame"):
        table.add_column(title, justify="left" if title == "part" else "right")
    rows = {**cost["parts"], "total": cost["total"], "total as the paper counts": cost["published"]}
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / segments:,.0f}")
    console = console or Console()
    console.print(table)
    if "exits" in cost:
        text = ", ".join(multiply_adds(exit_cost) for exit_cost in cost["exits"])
        console.print(f"of a video that exits early: {text}", highlight=False)


def show_exits(
    folder: Path, rows: list[dict[str, Any]], metric: str, protocol: str, console: Console | None = None
) -> None:
    """Prints the rows of an early-exit evaluation that were run with real early exit, and a one-line conclusion."""
    console = console or Console()
    table = Table(title=_text(protocol), title_justify="left", box=SIMPLE)
    table.add_column("leaves by", no_wrap=True)
    for title in ("budget", NAMES.get(metric, metric), "multiply-adds", "ms a video", "in networks", "saving kept"):
        table.add_column(title, justify="right", no_wrap=title in ("budget", "multiply-adds"))
    run = [row for row in rows if row["score"] is not None]
    for row in run:
        budget = "" if row["budget"] is None else f"{row['budget']:g}"
        kept = "" if row["kept"] is None or row["budget"] is None else _kept(row["kept"])
        times = [f"{1000 * row[key]:.2f}" for key in ("seconds", "networks")]
        table.add_row(_text(row["name"]), budget, f"{row['score']:.1f}", multiply_adds(row["cost"]), *times, kept)
    console.print(table)
    differing = sum(row["differing"] or 0 for row in rows)
    deviation = max((row["deviation"] or 0.0 for row in rows), default=0.0)
    _say(console, f"against the simulation: {differing} videos differ, largest deviation of a logit {deviation:.1e}")
    if conclusion := conclude_exits(run):
        _say(console, conclusion)
    _say(console, f"early_exit.json, .csv, .png in {folder}")


def _kept(share: float) -> str:
    """Formats the share saved of time relative to that of multiply-adds; "none" if early exit took longer."""
    return f"{100 * share:.0f} %" if share > 0 else "none"


def conclude_exits(rows: list[dict[str, Any]]) -> str | None:
    """Describes in one line the cheapest budget that reaches the full model's score, or else the best-scoring budget.

    Args:
        rows: the rows that were run with real early exit, the full model first.
    """
    full, best = rows[0], best_budget(rows)
    if best is None:
        return None
    equal = best["score"] >= full["score"]
    share = f"{best['score']:.1f} % at {100 * best['cost'] / full['cost']:.0f} % of the multiply-adds"
    reached = "reaches" if equal else "stays below"
    return f"{share} ({best['name']}, budget {best['budget']:g}): {reached} the full model's {full['score']:.1f} %"
