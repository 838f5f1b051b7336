"""Compares runs on the videos that both evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adafocus.evaluation.intervals import intervals
from adafocus.runs.predictions import Predicted
from adafocus.runs.report.contents import Contents


@dataclass(frozen=True)
class Pair:
    """Top-1 of two runs on their common videos, in percent.

    Attributes:
        videos: number of common videos.
        difference, interval: the first run's score minus the second's, and its 95 % bootstrap interval.
        gained, lost: paths of the videos that only the first run, or only the second run, predicts correctly.
    """

    first: str
    second: str
    videos: int
    difference: float
    interval: tuple[float, float]
    gained: list[str]
    lost: list[str]


def pairs(runs: Sequence[Contents]) -> list[Pair]:
    """Compares the first run with each other run that evaluated some of the same videos with the same labels."""
    known = [(run.name, {row.path: row for row in run.predicted}) for run in runs if run.predicted]
    found = [_pair(known[0], other) for other in known[1:]] if known else []
    return [pair for pair in found if pair is not None]


def _pair(first: tuple[str, dict[str, Predicted]], second: tuple[str, dict[str, Predicted]]) -> Pair | None:
    (name, ours), (other, theirs) = first, second
    common = [path for path in ours if path in theirs]
    if not common or any(ours[path].labels != theirs[path].labels for path in common):
        return None  # synthetic videos of different seeds have the same names
    right = torch.tensor([[ours[path].right, theirs[path].right] for path in common])
    logits = {key: torch.stack([right[:, column], ~right[:, column]], 1).float() for column, key in enumerate("ab")}
    nothing = torch.zeros(len(common), 1, dtype=torch.int64)  # class 0 in `logits` stands for a correct prediction
    behind = intervals(logits, nothing, torch.ones(len(common), dtype=torch.bool), "top1")["b"].behind
    share = right.double().mean(0) * 100
    gained = [path for path, (a, b) in zip(common, right.tolist(), strict=True) if a and not b]
    lost = [path for path, (a, b) in zip(common, right.tolist(), strict=True) if b and not a]
    return Pair(name, other, len(common), float(share[0] - share[1]), behind, gained, lost)
