"""The table at the end of a run. Needs no torch, so a finished folder answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

NAMES = {"top1": "top-1 %", "map": "mAP %"}


def multiply_adds(count: float) -> str:
    """A count with its unit: 26.957 G, 12.3 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"


def show(folder: Path, summary: dict[str, Any], console: Console | None = None) -> None:
    """Prints score and multiply-adds of every variant, and where the rest is."""
    console = console or Console()
    table = Table(title=f"{summary['protocol']}", title_justify="left")
    table.add_column("looks at")
    table.add_column(NAMES.get(summary["metric"], summary["metric"]), justify="right")
    table.add_column("multiply-adds a video", justify="right")
    for row in summary["rows"]:
        table.add_row(row["name"], f"{row['score']:.1f}", multiply_adds(row["cost"]))
    console.print(table)
    if found := summary.get("places"):
        console.print(places_line(found), highlight=False, soft_wrap=True)
        if found["warning"]:
            console.print(f"note: {found['warning']}", highlight=False, soft_wrap=True)
    for gain in summary.get("stages") or []:
        text = f"stage {gain['stage']}: {gain['answer']} {gain['score']:.1f}, {gain['seconds']:.0f} s"
        console.print(text, highlight=False)
    published = summary.get("published") or {}
    if published.get("score") is not None:
        console.print(f"published: {published['score']} % at {published['gflops']} G ({published['source']})")
    if unreadable := summary["data"]["evaluate"].get("unreadable"):
        console.print(f"{unreadable} evaluation videos could not be read and count as wrong (summary.json names them)")
    if summary.get("picture"):
        console.print(f"picture: {folder / summary['picture']}", soft_wrap=True)
    console.print(f"run folder: {folder}", soft_wrap=True)


def places_line(places: dict[str, Any]) -> str:
    """Spread and area of the learned places, in one line."""
    frames = places["spread_frames"]
    over_frames = "" if frames is None else f", {frames:.3f} over the frames of a clip"
    areas = " / ".join(f"{100 * places[f'area_{kind}']:.0f}" for kind in ("min", "median", "max"))
    return (
        f"learned places: spread {places['spread_clips']:.3f} over clips{over_frames} (of the free range); "
        f"area {areas} % of the frame (min / median / max)"
    )


def show_cost(cost: dict[str, Any], segments: int, console: Console | None = None) -> None:
    """Prints multiply-adds a video and a frame, by part."""
    table = Table(title="multiply-adds", title_justify="left")
    for title in ("part", "a video", "a frame"):
        table.add_column(title, justify="left" if title == "part" else "right")
    rows = {**cost["parts"], "total (what our forward does)": cost["total"], "as the seeds count": cost["published"]}
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / segments:,.0f}")
    console = console or Console()
    console.print(table)
    if "exits" in cost:
        text = ", ".join(multiply_adds(exit_cost) for exit_cost in cost["exits"])
        console.print(f"of a video that leaves early: {text}", highlight=False)


def show_exits(
    folder: Path, rows: list[dict[str, Any]], metric: str, protocol: str, console: Console | None = None
) -> None:
    """Prints the rows of an early-exit evaluation that were run: score against multiply-adds and seconds."""
    console = console or Console()
    table = Table(title=protocol, title_justify="left", box=SIMPLE)
    table.add_column("leaves by", no_wrap=True)
    for title in ("budget", NAMES.get(metric, metric), "multiply-adds", "ms a video", "in networks", "saving kept"):
        table.add_column(title, justify="right", no_wrap=title in ("budget", "multiply-adds"))
    for row in rows:
        if row["score"] is None:
            continue
        budget = "" if row["budget"] is None else f"{row['budget']:g}"
        kept = "" if row["kept"] is None or row["budget"] is None else f"{100 * row['kept']:.0f} %"
        times = [f"{1000 * row[key]:.2f}" for key in ("seconds", "networks")]
        table.add_row(row["name"], budget, f"{row['score']:.1f}", multiply_adds(row["cost"]), *times, kept)
    console.print(table)
    differing = sum(row["differing"] or 0 for row in rows)
    deviation = max((row["deviation"] or 0.0 for row in rows), default=0.0)
    text = f"against the simulation: {differing} videos differ, largest deviation of a logit {deviation:.1e}"
    console.print(text, highlight=False)
    console.print(f"early_exit.json, .csv, .png in {folder}", soft_wrap=True)
