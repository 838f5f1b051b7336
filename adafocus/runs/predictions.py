"""predictions.csv: what a network and its controls predict for every evaluation video."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from adafocus.core.errors import UserError, printable
from adafocus.core.files import unwritable
from adafocus.core.outputs import CSVTable, original

FILE = "predictions.csv"
TOP = 5


def write_predictions(
    folder: Path,
    paths: Sequence[str],
    classes: Sequence[str],
    labels: Tensor,
    logits: Mapping[str, Tensor],
    bad: Mapping[int, str],
    *,
    exits: Tensor | None = None,
) -> None:
    """Writes predictions.csv with a row for each of N videos, in the order of the evaluation list.

    Args:
        folder: the run folder.
        paths: path of each video, as in the evaluation list.
        classes: names of the K classes.
        labels: (N, L) class ids padded with -1.
        logits: predictions (N, K) by name; the first is the method itself, the others are controls.
        bad: index of a video that could not be read -> reason; its row has this error and no prediction.
        exits: (N,) index of each video's exit; None without early exit.

    Raises:
        UserError: the file cannot be written.
    """
    main, *controls = logits
    scores = {name: values.double().softmax(1) for name, values in logits.items()}
    best = scores[main].topk(min(TOP, len(classes)))
    guesses = {name: scores[name].max(1) for name in controls}
    columns: dict[str, type] = {"path": str, "label": str, "labels": list}
    for rank in range(1, best.indices.shape[1] + 1):
        columns |= {_ranked("prediction", rank): str, _ranked("probability", rank): float}
    columns["exit"] = int
    for name in controls:
        columns |= {_of("prediction", name): str, _of("probability", name): float}
    columns["error"] = str
    try:
        table = CSVTable(folder / FILE, columns)
    except OSError as error:
        raise unwritable(folder / FILE, error) from error
    for index, path in enumerate(paths):
        named = [classes[number] for number in labels[index].tolist() if number >= 0]
        row: dict[str, Any] = {"path": path, "label": named[0], "labels": named if len(named) > 1 else None}
        if index in bad:
            table.write({**row, "error": printable(bad[index])})
            continue
        for rank, (number, score) in enumerate(
            zip(best.indices[index].tolist(), best.values[index].tolist(), strict=True), 1
        ):
            row |= {_ranked("prediction", rank): classes[number], _ranked("probability", rank): round(score, 5)}
        for name, (values, numbers) in guesses.items():
            row |= {
                _of("prediction", name): classes[int(numbers[index])],
                _of("probability", name): round(float(values[index]), 5),
            }
        table.write({**row, "exit": None if exits is None else int(exits[index])})
    table.close()


def _ranked(name: str, rank: int) -> str:
    return name if rank == 1 else f"{name}_{rank}"


def _of(name: str, variant: str) -> str:
    return f"{name} ({variant})"


@dataclass
class Predicted:
    """A row of predictions.csv: `labels` and `top` (class, probability) are names, `controls` maps names to classes."""

    path: str
    labels: list[str]
    top: list[tuple[str, float]] = field(default_factory=list)
    exit: int | None = None
    controls: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def right(self) -> bool:
        return bool(self.top) and self.top[0][0] == self.labels[0]


def read_predictions(folder: Path) -> list[Predicted]:
    """Reads the rows of a run's predictions.csv; an empty list if the run has no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_read(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is damaged; evaluate the run again with mode=evaluate checkpoint={folder}") from error


def _read(row: Mapping[str, str]) -> Predicted:
    found = Predicted(original(row["path"]), [original(row["label"])], error=original(row["error"]))
    if row["labels"]:
        found.labels = [str(name) for name in json.loads(row["labels"])]
    if found.error:
        return found
    for rank in range(1, TOP + 1):
        if name := row.get(_ranked("prediction", rank)):
            found.top.append((original(name), float(row[_ranked("probability", rank)])))
    found.exit = int(row["exit"]) if row["exit"] else None
    for column, value in row.items():
        if column.startswith("prediction ("):
            found.controls[column[len("prediction (") : -1]] = original(value)
    return found
