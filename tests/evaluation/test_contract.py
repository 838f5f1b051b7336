"""Thresholds with a guarantee: tests against exact figures, and 500 redrawn calibrations on drawn scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adafocus.core.errors import UserError
from adafocus.evaluation import contract, exits

LOSE, SURE = 0.02, 0.95


def drawn(count: int, seed: int, exits_: int = 6, classes: int = 20) -> tuple[Tensor, Tensor]:
    """Logits (N, E, K) of a network that knows more at each exit, and labels (N, 1).

    Videos differ in how hard they are, and logits are the more certain the easier a video is.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count, 1), generator=generator)
    hard = torch.rand(count, 1, 1, generator=generator)
    knows = torch.linspace(1, 6, exits_)[None, :, None] * (1.2 - hard)
    noise = torch.randn(count, 1, classes, generator=generator) + 0.5 * torch.randn(
        count, exits_, classes, generator=generator
    )
    return noise + knows * torch.nn.functional.one_hot(labels, classes), labels


def test_p_values_are_binomial() -> None:
    assert contract.p_value(0, 10, 0.1) == pytest.approx(0.9**10)
    direct = sum(math.comb(40, k) * 0.2**k * 0.8 ** (40 - k) for k in range(6))
    assert contract.p_value(5, 40, 0.2) == pytest.approx(direct)
    assert contract.p_value(40, 40, 0.2) == pytest.approx(1.0)
    assert contract.needed_videos(0.01, 0.95) == 299
    assert contract.p_value(0, 299, 0.01) <= 0.05 < contract.p_value(0, 298, 0.01)


def test_too_few_videos_are_refused_with_the_number_needed() -> None:
    with pytest.raises(UserError, match="needs at least 299 calibration videos, and there are 298"):
        contract.choose(torch.zeros(298, 2, dtype=torch.bool), [0, 1], 0.01, 0.95)
    found = contract.choose(torch.zeros(299, 2, dtype=torch.bool), [1, 0], 0.01, 0.95)
    assert (found.chosen, found.passed, found.lost) == (0, 2, 0)


def test_the_sequence_ends_at_the_first_failure() -> None:
    lost = torch.zeros(1000, 3, dtype=torch.bool)
    lost[:100, 1] = True
    assert contract.choose(lost, [0, 1, 2], 0.01, 0.95).chosen == 0  # 2 would pass, but comes after a failure
    assert contract.choose(lost, [1, 0, 2], 0.01, 0.95).chosen is None


def test_a_video_is_lost_if_only_the_full_model_is_right() -> None:
    labels = torch.tensor([[0, -1], [0, 1], [0, -1], [0, -1]])
    early, full = torch.tensor([1, 1, 0, 2]), torch.tensor([0, 0, 1, 2])
    assert contract.lost_videos(early, full, labels).tolist() == [True, False, False, False]


def test_500_redrawn_calibrations_keep_the_contract() -> None:
    """At most 5 % violate it; choosing by the calibration videos alone would violate it far more often.

    It saves at least nine tenths of what the cheapest candidate within the limit saves.
    """
    budgets = [number / 20 for number in range(20, 60)]
    logits, _ = drawn(4000, 1)
    shares = exits.wanted_shares(budgets, 6)
    candidates = [exits.thresholds(exits.certainty(logits), share) for share in shares]
    costs = torch.arange(1, 7.0)
    spent = [float(costs[exits.exit_indices(exits.certainty(logits), limits)].mean()) for limits in candidates]
    order = sorted(range(len(budgets)), key=lambda index: -spent[index])
    logits, labels = drawn(40_000, 2)
    sure, classes = exits.certainty(logits), logits.argmax(-1)
    at = torch.stack([exits.exit_indices(sure, limits) for limits in candidates], 1)
    lost = torch.stack(
        [contract.lost_videos(classes.gather(1, a[:, None])[:, 0], classes[:, -1], labels) for a in at.unbind(1)], 1
    )
    truth, true_cost = lost.double().mean(0), costs[at].double().mean(0)
    assert truth[order[0]] < LOSE < truth[order[-1]]  # the limit lies within the candidates
    generator, violated, careless, savings = torch.Generator().manual_seed(3), 0, 0, []
    within = min(float(true_cost[index]) for index in order if truth[index] <= LOSE)
    for _ in range(500):
        calibration = lost[torch.randint(0, len(lost), (4000,), generator=generator)]
        found = contract.choose(calibration, order, LOSE, SURE)
        violated += found.chosen is not None and bool(truth[found.chosen] > LOSE)
        share = calibration.float().mean(0).tolist()
        careless += bool(truth[[index for index in order if share[index] <= LOSE][-1]] > LOSE)
        savings.append(0.0 if found.chosen is None else (6 - float(true_cost[found.chosen])) / (6 - within))
    assert violated / 500 <= 1 - SURE and careless / 500 > 2 * (1 - SURE)
    assert sum(savings) / 500 >= 0.9
