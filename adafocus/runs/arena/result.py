"""The table and the plot of an arena: score with interval against multiply-adds and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adafocus.core.errors import UserError
from adafocus.core.files import read_json
from adafocus.evaluation.bootstrap import Interval, bootstrap
from adafocus.runs.arena.entrants import BASELINE
from adafocus.runs.arena.plan import TOLERANCE, Trial, near
from adafocus.runs.arena.processes import finished
from adafocus.runs.compare.render import human
from adafocus.runs.predictions import read_predictions

HEADER = (
    "way of choosing",
    "budget",
    "setting",
    "score (95 % interval)",
    f"minus {BASELINE}",
    "multiply-adds",
    "ms per video",
    "seeds",
)


@dataclass
class Row:
    """One entrant at one budget, over all seeds.

    Attributes:
        name: name of the entrant in the table.
        budget: multiply-adds per video that it may cost.
        setting: the override that meets the budget.
        cost: multiply-adds per video.
        right: (S, N) bool, whether the network of each of S seeds is right about each of N evaluation videos.
        seconds: seconds per evaluation video for each seed, decoding included; empty for rows of `Entrant.also`.
        score: mean score and interval.
        gain: difference to the baseline's score at the same budget, on the same videos; None without a baseline.
    """

    name: str
    budget: int
    setting: str
    cost: int
    right: np.ndarray
    seconds: list[float] = field(default_factory=list)
    score: Interval = field(init=False)
    gain: Interval | None = None

    def __post_init__(self) -> None:
        self.score = bootstrap(self.right)

    @property
    def equal(self) -> bool:
        """Whether the cost is that of the budget, within `TOLERANCE`."""
        return near(self.cost, self.budget)


def rows_of(trials: Sequence[Trial]) -> list[Row]:
    """Makes the rows of all finished trials, budget by budget in the order of the trials.

    Raises:
        UserError: runs of one budget were evaluated on different videos.
    """
    rows: list[Row] = []
    groups: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        if finished(trial.folder):
            groups.setdefault((trial.entrant.name, trial.budget), []).append(trial)
    for members in groups.values():
        rows += _rows_of_one(members)
    baseline = {row.budget: row for row in rows if row.name == BASELINE}
    for row in rows:
        base = baseline.get(row.budget)
        if base is not None and base is not row and row.equal:
            if base.right.shape[1] != row.right.shape[1]:
                raise UserError(
                    f"the runs of {row.name!r} and {BASELINE!r} were evaluated on other videos; choose another --out"
                )
            row.gain = bootstrap(row.right, base.right)
    return rows


def _rows_of_one(members: Sequence[Trial]) -> list[Row]:
    first, budget = members[0], members[0].budget
    exits = first.entrant.exits > 0
    summaries = [read_json(trial.folder / "summary.json", dict) for trial in members]
    predicted = [read_predictions(trial.folder) for trial in members]
    if any(not table or len(table) != len(predicted[0]) for table in predicted):
        raise UserError(
            f"{first.folder.parent}: runs of {first.entrant.name} have no predictions.csv, or different ones"
        )
    main = np.array([[video.right for video in table] for table in predicted])
    seconds = [float(summary["seconds"]["per_video"]) for summary in summaries]
    # With early exit the cost is the mean that was measured; the row after that of the full model has it.
    cost = round(np.mean([summary["rows"][1]["cost"] for summary in summaries])) if exits else first.cost
    found = [Row(first.entrant.name, budget, first.setting, cost, main, seconds)]
    costs = {row["name"]: int(row["cost"]) for row in summaries[0]["rows"]}
    for label, name in first.entrant.also.items():
        if label in costs and all(label in video.controls for video in predicted[0] if not video.error):
            right = np.array([[video.controls.get(label) == video.labels[0] for video in table] for table in predicted])
            found.append(Row(name, budget, first.setting, costs[label], right))
    return found


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the cells of the table as text, one list for each row, without the header."""
    return [
        [
            row.name,
            human(row.budget),
            row.setting,
            f"{row.score.mean:.1f} ({row.score.low:.1f} to {row.score.high:.1f})",
            "" if row.gain is None else f"{row.gain.mean:+.1f} ({row.gain.low:+.1f} to {row.gain.high:+.1f})",
            human(row.cost) + ("" if row.equal else " *"),
            f"{1000 * float(np.median(row.seconds)):.1f}" if row.seconds else "",
            str(len(row.right)),
        ]
        for row in rows
    ]


def markdown(rows: Sequence[Row], about: Sequence[str]) -> str:
    """Returns the table in Markdown, below the lines `about`, which describe data and protocol."""
    lines = [*(part for line in about for part in (line, "")), "| " + " | ".join(HEADER) + " |"]
    lines += ["|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(line) + " |" for line in cells(rows)]
    if not all(row.equal for row in rows):
        lines += ["", f"* more than {100 * TOLERANCE:.0f} % from the budget, so not a comparison at equal cost"]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the rows of an arena's table as plain data with unrounded numbers, for arena.json."""
    return [
        {
            "name": row.name,
            "budget": row.budget,
            "setting": row.setting,
            "cost": row.cost,
            "equal": row.equal,
            "scores": [100 * float(right.mean()) for right in row.right],
            "score": row.score._asdict(),
            "gain": None if row.gain is None else row.gain._asdict(),
            "seconds": row.seconds,
            "videos": row.right.shape[1],
        }
        for row in rows
    ]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots score against multiply-adds and against measured seconds, a line for each entrant, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for name in dict.fromkeys(row.name for row in rows):
        own = sorted((row for row in rows if row.name == name), key=lambda row: row.cost)
        scores = [row.score.mean for row in own]
        errors = [[row.score.mean - row.score.low for row in own], [row.score.high - row.score.mean for row in own]]
        line = left.errorbar([row.cost for row in own], scores, yerr=errors, fmt="o-", capsize=3, label=name)
        timed = [row for row in own if row.seconds]
        right.plot(
            [1000 * float(np.median(row.seconds)) for row in timed],
            [row.score.mean for row in timed],
            "o-",
            color=line.lines[0].get_color(),
        )
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
    left.set_xlabel("multiply-adds per video")
    right.set_xlabel("milliseconds per video, reading included")
    left.set_ylabel("top-1 (%), 95 % interval")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, format="png")
