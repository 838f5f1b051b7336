"""Precision, recall, F1 and support of every class, the confusion matrix, and the most frequent mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adafocus.runs.predictions import Predicted


@dataclass(frozen=True)
class ClassScore:
    """Scores of a class in percent; `support` is its number of videos.

    `precision` is None if the class was never predicted; `recall` and `f1` are None if it has no video.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def class_scores(predicted: Sequence[Predicted], classes: Sequence[str]) -> list[ClassScore]:
    """Computes the scores of every class from each video's most probable class and first label.

    A video that could not be read counts as not recognized, which lowers the recall of its class.
    """
    support = Counter(row.labels[0] for row in predicted)
    said = Counter(row.top[0][0] for row in predicted if row.top)
    hits = Counter(row.labels[0] for row in predicted if row.right)
    found = []
    for name in classes:
        precision = 100 * hits[name] / said[name] if said[name] else None
        recall = 100 * hits[name] / support[name] if support[name] else None
        f1 = None if recall is None else 200 * hits[name] / (said[name] + support[name])
        found.append(ClassScore(name, precision, recall, f1, support[name]))
    return found


def confusion(predicted: Sequence[Predicted], classes: Sequence[str]) -> list[list[int]]:
    """Returns the numbers of readable videos by label (row) and predicted class (column)."""
    pairs = Counter((row.labels[0], row.top[0][0]) for row in predicted if row.top)
    return [[pairs[label, prediction] for prediction in classes] for label in classes]


def confused(predicted: Sequence[Predicted], most: int) -> list[tuple[str, str, int]]:
    """Returns the `most` most frequent mistakes as (label, predicted class, number of videos)."""
    pairs = Counter((row.labels[0], row.top[0][0]) for row in predicted if row.top and not row.right)
    return [(*pair, count) for pair, count in pairs.most_common(most)]
