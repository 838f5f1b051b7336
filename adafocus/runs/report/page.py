"""Makes the HTML page of one run or of several runs; jinja2 escapes every text."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adafocus.core.errors import printable
from adafocus.runs.compare.render import cells
from adafocus.runs.compare.table import compare, group, read_run
from adafocus.runs.report.charts import Chart, Series, chart
from adafocus.runs.report.classes import class_scores, confused, confusion
from adafocus.runs.report.contents import Contents, Row, finite, points
from adafocus.runs.report.paired import Pair, pairs
from adafocus.runs.report.strips import Strip
from adafocus.runs.table import NAMES, multiply_adds, places_line

MATRIX = 30  # largest number of classes with a confusion matrix; with more, the most frequent mistakes are listed
MOST_NAMED = 50  # largest number of unreadable or missing videos that are named


def run_page(run: Contents) -> str:
    """Returns the HTML page of one run."""
    return _page("run.html.jinja", run=run, **_described(run))


def comparison_page(runs: Sequence[Contents]) -> str:
    """Returns an HTML page that compares several runs."""
    tables = [cells(compare(members)) for members in group([read_run(run.folder) for run in runs])]
    scored = [run for run in runs if run.rows]
    found: list[Pair] = pairs(scored)
    metrics = {str(run.summary.get("metric", "")) for run in scored}
    curve = chart(
        "Score against cost",
        [Series(run.name, [(run.rows[0].cost, run.rows[0].score)], False, [run.rows[0].interval]) for run in scored],
        x_label="multiply-adds a video",
        y_label=_metric(metrics.pop()) if len(metrics) == 1 else "score %",
        x_text=multiply_adds,
    )
    return _page(
        "comparison.html.jinja",
        tables=tables,
        pairs=found,
        charts=[one for one in (curve, _metric_curves(scored)) if one],
        runs=[(run, _described(run)) for run in runs],
    )


def _described(run: Contents) -> dict[str, Any]:
    summary = run.summary
    metric = str(summary.get("metric", ""))
    scores = class_scores(run.predicted, run.classes)
    matrix = confusion(run.predicted, run.classes) if run.predicted and len(run.classes) <= MATRIX else None
    parts = (summary.get("cost") or {}).get("parts") or {}
    places = summary.get("places")
    return {
        "metric": _metric(metric),
        "headline": headline(run.rows, metric),
        "scores": sorted(scores, key=lambda one: (one.f1 is None, one.f1, one.name)) if run.predicted else [],
        "matrix": matrix,
        "confused": confused(run.predicted, 20),
        "mistakes": [strip for strip in run.strips if not strip.right],
        "right": [strip for strip in run.strips if strip.right],
        "parts_of_cost": [(str(name), finite(count)) for name, count in parts.items()],
        "places": places_line(places) if places else "",
        "warning": str((places or {}).get("warning") or ""),
        "charts": [one for one in (_cost_chart(run), *_training_charts(run, metric)) if one],
        "found": _found(run),
        "bad": [row for row in run.predicted if row.error],
        "missing": [str(path) for paths in (run.data.get("missing") or {}).values() for path in paths],
        "notes": [str(note) for note in run.data.get("notes") or ()],
        "config": json.dumps(run.config, indent=1, ensure_ascii=False, sort_keys=True),
        "most": MOST_NAMED,
    }


def headline(rows: Sequence[Row], metric: str) -> list[str]:
    """Returns a sentence about the method's score, and one that compares it with the best control."""
    if not rows:
        return []
    main, *others = rows
    said = [f"{main.name}: {main.score:.1f} {_metric(metric)}{_ends(main.interval)} at {multiply_adds(main.cost)} "]
    said[0] += "multiply-adds a video."
    controls = [row for row in others if row.behind is not None]
    if not controls:
        return said
    best = max(controls, key=lambda row: row.score)
    low, high = best.behind or (0.0, 0.0)
    gap = main.score - best.score
    where = "above" if gap > 0 else "below"
    sure = low > 0 or high < 0
    said.append(
        f"That is {abs(gap):.1f} points {where} its best control, {best.name}"
        f" (95 % interval of the difference {low:+.1f} to {high:+.1f}"
        + (")." if sure else "): these videos do not tell the two apart.")
        if gap
        else f"Its best control, {best.name}, has the same score (95 % interval of the difference {low:+.1f} to "
        f"{high:+.1f})."
    )
    return said


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" (95 % interval {interval[0]:.1f} to {interval[1]:.1f})"


def _metric(metric: str) -> str:
    return NAMES.get(metric, f"{metric} %")


def _cost_chart(run: Contents) -> Chart | None:
    if run.exits:
        names = dict.fromkeys(str(row["name"]) for row in run.exits)
        series = []
        for name in names:
            own = sorted((finite(row["cost"]), finite(row["simulated"])) for row in run.exits if row["name"] == name)
            done = [row for row in run.exits if row["name"] == name and row["score"] is not None]
            if len(own) > 1:
                series.append(Series(f"{name}, simulated", own))
            label = name if len(own) == 1 else f"{name}, run"
            if done:
                series.append(Series(label, [(finite(row["cost"]), finite(row["score"])) for row in done], line=False))
    else:
        series = [Series(row.name, [(row.cost, row.score)], False, [row.interval]) for row in run.rows]
    label = _metric(str(run.summary.get("metric", "")))
    about = {"x_label": "multiply-adds a video", "y_label": label}
    return chart("Score against cost", series, x_text=multiply_adds, **about)


def _training_charts(run: Contents, metric: str) -> list[Chart | None]:
    """Makes the charts of loss, validation score and learning rate over the steps of every stage."""
    metric = metric or str(run.config.get("dataset", {}).get("metric", ""))

    def of(kind: str, name: str, text: str) -> list[Series]:
        stages = [(stage, points(lines, kind, name)) for stage, lines in run.curves.items()]
        return [Series(f"{stage}: {text}" if stage else text, found) for stage, found in stages if found]

    loss = of("train", "loss", "training") + of("evaluate", "loss", "validation")
    return [
        chart("Loss", loss, x_label="step", y_label=""),
        chart("Validation score", of("evaluate", metric, metric), x_label="step", y_label=_metric(metric)),
        chart("Learning rate", of("train", "lr", "learning rate"), x_label="step", y_label=""),
    ]


def _metric_curves(runs: Sequence[Contents]) -> Chart | None:
    series = []
    for run in runs:
        metric = str(run.summary.get("metric", ""))
        if found := points(run.curves.get("", []), "evaluate", metric):
            series.append(Series(run.name, found))
    return chart("Validation score", series, x_label="step", y_label="score %")


def _found(run: Contents) -> list[tuple[str, dict[str, str]]]:
    """Returns (split, counts of its videos by kind as text)."""
    counts = run.summary.get("data") or run.data.get("found") or {}
    columns = ("listed", "expected", "found", "missing", "unreadable", "too_short")
    return [
        (str(split), {key: str(values[key]) for key in columns if values.get(key) is not None})
        for split, values in counts.items()
    ]


def _page(template: str, **values: Any) -> str:
    place = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=place, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"printable": printable, "picture": _data_uri, "macs": multiply_adds, "metric": _metric}
    return made.get_template(template).render(**values)


def _data_uri(strip: Strip) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(strip.picture).decode()
