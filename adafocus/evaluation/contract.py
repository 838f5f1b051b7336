"""Exit thresholds with a guarantee: with high probability, early exit loses at most a given share of the videos.

The method is Learn then Test (Angelopoulos et al., arXiv 2110.01052) with fixed-sequence testing. A video is *lost* if
the full model classifies it correctly and early exit does not. For each candidate (a threshold for every exit) the
hypothesis "more than the allowed share of all videos is lost" is tested on calibration videos. Their number of lost
videos is binomial, so the p-value is exact. Candidates are tested from the most expensive to the cheapest, each at the
full level, until one hypothesis is not rejected; all candidates before it keep the guarantee together.

The guarantee holds if neither the candidates nor their order depend on the calibration videos, if the network was not
trained on them, and if videos in use come from the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from adafocus.core.errors import UserError


@dataclass(frozen=True)
class Contract:
    """Result of choosing exit thresholds with a guarantee: the test, and the candidate that passed.

    Attributes:
        lose: largest share of videos that may be lost.
        sure: probability of the guarantee, over the draw of the calibration videos.
        videos: number of calibration videos.
        passed: number of candidates whose hypothesis was rejected, which therefore have the guarantee.
        chosen: index of the cheapest of them; None if not even the most expensive one passed.
        lost: number of calibration videos that the chosen candidate loses.
        p_value: p-value of the chosen candidate's test, at most 1 - sure.
    """

    lose: float
    sure: float
    videos: int
    passed: int
    chosen: int | None
    lost: int | None
    p_value: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def needed_videos(lose: float, sure: float) -> int:
    """Returns the smallest number of calibration videos with which a test can succeed: 299 for 0.01 and 0.95."""
    return math.ceil(math.log(1 - sure) / math.log(1 - lose))


def p_value(lost: int, videos: int, lose: float) -> float:
    """Returns the probability of at most `lost` lost videos among `videos` if each is lost with probability `lose`."""
    k = torch.arange(lost + 1, dtype=torch.float64)
    n = torch.tensor(float(videos), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(1.0, float((ways + k * math.log(lose) + (n - k) * math.log1p(-lose)).logsumexp(0).exp()))


def lost_videos(early: Tensor, full: Tensor, labels: Tensor) -> Tensor:
    """Returns for each of N videos, (N,) bool, whether the full model is right and early exit wrong.

    Args:
        early, full: (N,) int64 predicted classes with early exit and of the full model.
        labels: (N, L) int64 class ids, padded with -1; any of them is correct.
    """
    right, kept = ((labels == predicted[:, None]).any(1) for predicted in (full, early))
    return right & ~kept


def choose(lost: Tensor, order: Iterable[int], lose: float, sure: float) -> Contract:
    """Tests candidates on calibration videos in a fixed order and chooses the last one that passes.

    Args:
        lost: (N, C) bool, whether each candidate loses each calibration video.
        order: indices of the candidates, the most expensive first; it must not depend on these videos.
        lose: largest share of lost videos.
        sure: probability of the guarantee.

    Raises:
        UserError: there are too few videos for any candidate to pass.
    """
    videos = len(lost)
    if videos < (needed := needed_videos(lose, sure)):
        raise UserError(
            f"early_exit.lose={lose:g} with early_exit.sure={sure:g} needs at least {needed} calibration videos, and "
            f"there are {videos}; raise early_exit.lose or early_exit.calibration, lower early_exit.sure, or evaluate "
            f"on more videos"
        )
    found = Contract(lose, sure, videos, 0, None, None, None)
    for index in order:
        count = int(lost[:, index].sum())
        p = p_value(count, videos, lose)
        if p > 1 - sure:
            break
        found = Contract(lose, sure, videos, found.passed + 1, index, count, p)
    return found
