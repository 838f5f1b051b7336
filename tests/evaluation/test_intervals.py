"""Bootstrap intervals: their coverage, pairing, and the weighted average precision that they resample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adafocus.evaluation.intervals import _resampled_map, intervals
from adafocus.evaluation.metrics import mean_average_precision


def answers(right: torch.Tensor) -> torch.Tensor:
    """Logits (N, 2) of videos of class 0, with argmax 0 where `right` (N,)."""
    return torch.stack([right.float(), 1 - right.float()], 1)


def test_top1_interval_is_that_of_the_binomial() -> None:
    right = torch.arange(400) < 300
    labels, valid = torch.zeros(400, 1, dtype=torch.int64), torch.ones(400, dtype=torch.bool)
    found = intervals({"a": answers(right)}, labels, valid, "top1")["a"]
    deviation = 100 * (0.75 * 0.25 / 400) ** 0.5
    assert found.score == pytest.approx((75 - 1.96 * deviation, 75 + 1.96 * deviation), abs=0.6)
    assert found.behind == (0, 0)


def test_differences_are_paired() -> None:
    right = torch.arange(100) % 2 == 0
    better = right | (torch.arange(100) < 10)  # five videos more, and no other
    labels, valid = torch.zeros(100, 1, dtype=torch.int64), torch.ones(100, dtype=torch.bool)
    found = intervals({"method": answers(better), "control": answers(right)}, labels, valid, "top1")["control"]
    assert 0 < found.behind[0] < 5 < found.behind[1] < 11  # unpaired, it would reach from -9 to 19
    valid[:10] = False
    found = intervals({"method": answers(better), "control": answers(right)}, labels, valid, "top1")["control"]
    assert found.behind == (0, 0)


def test_map_of_the_whole_split_is_the_metric() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator)
    labels = torch.stack([torch.randint(4, (40,), generator=generator), torch.full((40,), -1)], 1)
    labels[::3, 1] = 3
    valid = torch.ones(40, dtype=torch.bool)
    once = _resampled_map(logits, labels, valid, np.ones((1, 40), int))
    assert once[0] == pytest.approx(mean_average_precision(logits, labels, valid))
    found = intervals({"a": logits}, labels, valid, "map")["a"]
    assert found.score[0] < once[0] < found.score[1]
