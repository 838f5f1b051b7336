"""95 % bootstrap intervals of scores, over the videos of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

RESAMPLES = 2000
RESAMPLES_MAP = 200  # mean average precision takes a pass over all videos and classes for each resample


@dataclass(frozen=True)
class Interval:
    """95 % intervals in percent: of a variant's score, and of the difference of the first variant's score to it."""

    score: tuple[float, float]
    behind: tuple[float, float]


def intervals(logits: dict[str, Tensor], labels: Tensor, valid: Tensor, metric: str) -> dict[str, Interval]:
    """Computes percentile intervals of every variant's score; all are scored on the same resampled videos.

    They account for the choice of the videos in the split, not for differences between training seeds.

    Args:
        logits: predictions (N, K) by name of the variant; differences are of the first variant to each.
        labels: (N, L) class ids padded with -1.
        valid: (N,) bool; False if a video could not be read, which counts as wrong.
        metric: top1 or map.
    """
    rng = np.random.default_rng(0)
    if metric == "map":
        weights = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=RESAMPLES_MAP)
        drawn = np.stack([_resampled_map(scores, labels, valid, weights) for scores in logits.values()])
    else:
        right = np.stack([((scores.argmax(1) == labels[:, 0]) & valid).numpy() for scores in logits.values()])
        # Videos with the same right and wrong variants are interchangeable, so only the number of each kind is
        # resampled.
        outcomes, counts = np.unique(right, axis=1, return_counts=True)
        sizes = rng.multinomial(len(labels), counts / len(labels), size=RESAMPLES)
        drawn = 100 * outcomes @ sizes.T / len(labels)
    return {name: Interval(_middle(own), _middle(drawn[0] - own)) for name, own in zip(logits, drawn, strict=True)}


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def _resampled_map(logits: Tensor, labels: Tensor, valid: Tensor, weights: np.ndarray) -> np.ndarray:
    """Returns the mean average precision (R,) in percent of R resamples, from the count (R, N) of each video in them.

    Videos of equal probability are ranked in some order here, while `metrics.average_precision` gives them one rank.
    """
    probability = logits.double().softmax(1).numpy()
    probability[~valid.numpy()] = 0.0
    positive = np.zeros(probability.shape, bool)
    for column in labels.numpy().T:
        known = column >= 0
        positive[np.flatnonzero(known), column[known]] = True
    order = np.argsort(-probability, axis=0, kind="stable")
    positive = np.take_along_axis(positive, order, 0)
    found = np.empty(len(weights))
    for number, weight in enumerate(weights):
        drawn = weight[order]
        hits = np.cumsum(drawn * positive, axis=0)
        precision = hits / np.maximum(np.cumsum(drawn, axis=0), 1)
        total = hits[-1]
        occurs = total > 0
        found[number] = ((drawn * positive * precision).sum(0)[occurs] / total[occurs]).mean()
    return 100 * found
