"""Reads the content of a report from the files of a run folder, which may come from an untrusted source."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError
from adafocus.core.files import read_json
from adafocus.core.status import read_status
from adafocus.runs.predictions import Predicted, read_predictions
from adafocus.runs.report.strips import Strip, read_examples


@dataclass(frozen=True)
class Row:
    """An evaluation variant: score in percent, multiply-adds per video, and 95 % intervals if the run has them.

    `behind` is the interval of the method's score minus this variant's, on the same resampled videos.
    """

    name: str
    score: float
    cost: float
    interval: tuple[float, float] | None
    behind: tuple[float, float] | None


@dataclass
class Contents:
    """The files of a run folder.

    Attributes:
        summary: summary.json; empty until the run is finished.
        state, error: the fields of status.json.
        rows: the method and its controls, or the budgets of an early-exit run.
        curves: lines of metrics.jsonl by name of the stage.
        exits: rows of early_exit.json.
        command: the command line of the run, quoted for a shell.
        classes: class names, in the order of the class ids.
    """

    folder: Path
    name: str
    state: str
    error: str
    summary: dict[str, Any]
    rows: list[Row]
    predicted: list[Predicted]
    strips: list[Strip]
    curves: dict[str, list[dict[str, Any]]]
    data: dict[str, Any]
    exits: list[dict[str, Any]]
    config: dict[str, Any]
    command: str
    classes: list[str] = field(default_factory=list)


def read_contents(folder: Path) -> Contents:
    """Reads a run folder, finished or not.

    Raises:
        UserError: the folder is not a run folder, or a file is damaged.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    try:
        return _read(folder)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the files of {folder} lack something that a report needs, or hold something else there "
            f"({type(error).__name__}: {error})"
        ) from error


def _read(folder: Path) -> Contents:
    summary = read_json(folder / "summary.json", dict) or {}
    status = read_json(folder / "status.json", dict) or {}
    data = read_json(folder / "data.json", dict) or {}
    config = read_json(folder / "config.json", dict) or {}
    predicted = read_predictions(folder)
    classes = [str(name) for name in data.get("classes") or ()]
    typed = [str(word) for word in read_json(folder / "overrides.json", list) or ()]
    return Contents(
        folder,
        folder.absolute().name,
        "finished" if summary.get("state") == "finished" else str(read_status(folder)["state"] or "unknown"),
        str(status.get("error") or ""),
        summary,
        [_row(row) for row in summary.get("rows") or ()],
        predicted,
        read_examples(folder),
        dict(_curves(folder)),
        data,
        [row for row in (read_json(folder / "early_exit.json", dict) or {}).get("rows") or () if isinstance(row, dict)],
        config,
        shlex.join(["adafocus", "run", *typed]),
        classes or sorted({name for row in predicted for name in row.labels}),
    )


def _row(row: dict[str, Any]) -> Row:
    ends = [None if row.get(key) is None else (finite(row[key][0]), finite(row[key][1])) for key in _INTERVALS]
    return Row(str(row["name"]), finite(row["score"]), finite(row["cost"]), *ends)


_INTERVALS = ("interval", "behind")


def finite(value: Any) -> float:
    """Converts a number of a JSON file to a finite float.

    Raises:
        ValueError: the value is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _curves(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields (name, lines of metrics.jsonl) of every stage; the last stage's are in the run folder itself."""
    earlier = sorted(folder.glob("stages/*/metrics.jsonl"))
    for path in [*earlier, folder / "metrics.jsonl"]:
        if path.is_file():
            name = path.parent.name if path.parent != folder else ""
            yield name, list(_lines(path))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of metrics.jsonl, of which the last may be incomplete while the run goes on."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            yield value


def points(lines: Sequence[dict[str, Any]], kind: str, name: str) -> list[tuple[float, float]]:
    """Returns (step, value) of the number `name` in the lines of a kind ("train" or "evaluate")."""
    own = [(line["step"], line.get(name)) for line in lines if line.get("kind") == kind]
    return [
        (float(step), float(value))
        for step, value in own
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
