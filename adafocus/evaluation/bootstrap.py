"""Bootstrap intervals of scores over evaluation videos and training seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adafocus.core.rng import generator

DRAWS = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval, in percentage points."""

    mean: float
    low: float
    high: float


def bootstrap(right: np.ndarray, baseline: np.ndarray | None = None, *, seed: int = 0) -> Interval:
    """Returns the mean score and its percentile interval from resampling training seeds and videos with replacement.

    Args:
        right: (S, N) bool, whether the network of each of S training seeds is right about each of N videos.
        baseline: (R, N) bool, the same for another network; the result is then the mean and interval of the
            difference, with the same videos resampled for both (paired) and the seeds of each independently.
        seed: seed of the bootstrap's random numbers.

    Raises:
        ValueError: an array is empty, or the two have different numbers of videos.
    """
    if right.size == 0 or (baseline is not None and (baseline.size == 0 or baseline.shape[1] != right.shape[1])):
        raise ValueError(f"bootstrap needs (S, N) and (R, N), not {right.shape} and {getattr(baseline, 'shape', None)}")
    draws = generator(seed, "bootstrap")
    videos = draws.multinomial(right.shape[1], np.full(right.shape[1], 1 / right.shape[1]), DRAWS) / right.shape[1]

    def means(table: np.ndarray) -> np.ndarray:
        seeds = draws.multinomial(len(table), np.full(len(table), 1 / len(table)), DRAWS) / len(table)
        return np.einsum("ds,sn,dn->d", seeds, table.astype(np.float64), videos, optimize=True)

    found, mean = means(right), float(right.mean())
    if baseline is not None:
        found, mean = found - means(baseline), mean - float(baseline.mean())
    low, high = np.percentile(found, (2.5, 97.5))
    return Interval(100 * mean, 100 * float(low), 100 * float(high))
