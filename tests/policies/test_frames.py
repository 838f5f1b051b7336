"""Tests of the choice of frames: it equals the released program, loops and enumerations, also in extreme cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case

from adafocus.policies.frames import choose_frames, drawn_factors, frames_drawn, inclusion_factors
from adafocus.policies.scaled import over_time

GOLDEN = Case("uni_adafocus_temporal_sampling")
WEIGHTS = torch.from_numpy(GOLDEN["weights"])


def test_choice_and_inclusion_of_the_released_program() -> None:
    golden, weights, uniform = GOLDEN, WEIGHTS.clone(), torch.from_numpy(GOLDEN["uniform"])
    for candidates, count in ((48, 16), (48, 8), (48, 24), (96, 32), (32, 16)):
        for kind, draws in (("eval", None), ("train", uniform[:, :count])):
            name = f"focus_N{candidates}_K{count}_{kind}"
            safe = golden[f"{name}_safe"].astype(bool)
            assert (choose_frames(weights, candidates, count, draws).numpy()[safe] == golden[name][safe]).all()
    for count in (2, 5):
        golden.check(f"inclusion_T{count}", inclusion_factors(weights, count) * weights * count, 2e-7, of=1.0)
    features = golden_weights.array("uni_adafocus_temporal_sampling/features", (11, 16, 7))
    cotangent = golden_weights.array("uni_adafocus_temporal_sampling/cotangent", (11, 7))
    weights.requires_grad_()
    mean = torch.einsum("bg,bgd->bd", weights * inclusion_factors(weights, 5), features)
    golden.check("mean_feature_T5", mean, 1e-6, of=1.0)
    (mean * cotangent).sum().backward()
    golden.check("weights_gradient_T5", weights.grad[:4])
    actions = golden_weights.array("uni_adafocus_temporal_sampling/actions", (2, 16, 4)).sigmoid()
    golden.check("actions_48", over_time(actions, 48), 1e-6, of=1.0)


def test_choice_of_the_released_program_on_tsm() -> None:
    golden = Case("uni_adafocus_tsm_temporal_sampling")
    for pair, candidates, count in (("24_8", 24, 8), ("36_12", 36, 12), ("48_16", 48, 16)):
        weights, draws = (torch.from_numpy(golden[f"{name}_{pair}"]) for name in ("weights", "u"))
        assert (choose_frames(weights, candidates, count).numpy() == golden[f"indices_{pair}"]).all()
        assert (choose_frames(weights, candidates, count, draws).numpy() == golden[f"random_indices_{pair}"]).all()


def chosen_by_a_loop(weights: list[float], candidates: int, count: int) -> list[int]:
    border = np.float32([0, *np.cumsum(np.float32(weights), dtype=np.float32)])
    border[-1] = 1
    found: list[int] = []
    for step in range(count):
        threshold = np.float32((step + 0.5) / count)
        place = min(max(int(np.argmax(border >= threshold)), 1), len(weights))
        left, right = border[place - 1], border[place]
        g = np.float32(len(weights))
        position = (place / g * (threshold - left) - (place - 1) / g * (threshold - right)) / (right - left)
        frame = int(np.floor(np.float32(position) * np.float32(candidates)))
        found.append(max(frame, found[-1] + 1) if found else frame)
    return [min(frame, candidates - count + step) for step, frame in enumerate(found)]


@pytest.mark.parametrize(("candidates", "count"), [(9, 3), (12, 12), (7, 1), (30, 11)])
def test_choice_equals_the_loop(candidates: int, count: int) -> None:
    generator = torch.Generator().manual_seed(candidates)
    weights = (3 * torch.randn(20, 6, generator=generator)).softmax(1)
    frames = choose_frames(weights, candidates, count)
    assert frames.tolist() == [chosen_by_a_loop(row.tolist(), candidates, count) for row in weights]
    assert (frames.diff(dim=1) > 0).all() and frames.min() >= 0 and frames.max() < candidates


def test_choice_at_its_limits() -> None:
    hot = torch.eye(4)
    assert choose_frames(hot, 12, 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert choose_frames(hot[:1], 12, 3, torch.zeros(1, 3)).tolist() == [[0, 1, 2]]  # a threshold of exactly 0
    assert choose_frames(torch.full((1, 4), torch.nan), 12, 3).shape == (1, 3)
    with pytest.raises(ValueError, match="cannot choose 5 of 4"):
        choose_frames(hot, 4, 5)


def by_enumeration(weights: np.ndarray, count: int) -> np.ndarray:
    """Inclusion probabilities of sampling without replacement, as a sum over all ordered samples."""
    found = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), count):
        probability, left = 1.0, 1.0
        for frame in order:
            probability *= weights[frame] / left
            left -= weights[frame]
        found[list(order)] += probability
    return found


@pytest.mark.parametrize(("frames", "count"), [(3, 1), (5, 2), (7, 3), (6, 6), (8, 4)])
def test_inclusion_equals_the_enumeration(frames: int, count: int) -> None:
    weights = np.random.default_rng(frames).dirichlet(np.full(frames, 0.5))
    factors = inclusion_factors(torch.from_numpy(weights)[None], count)[0].numpy()
    np.testing.assert_allclose(factors * weights * count, by_enumeration(weights, count), atol=1e-9)


def test_inclusion_of_many_frames_and_of_one_that_has_all_the_weight() -> None:
    many = (4 * torch.randn(3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).softmax(1)
    np.testing.assert_allclose((many * inclusion_factors(many, 21)).sum(1).numpy(), 1.0, atol=1e-12)
    hot = torch.eye(16)[:2]
    factors = inclusion_factors(hot, 5)
    assert torch.isfinite(factors).all()
    # The frame with nearly all weight is always one of the five sampled ones.
    assert (factors * hot)[0, 0].item() == pytest.approx(0.2)


def test_draws_estimate_the_same() -> None:
    weights = WEIGHTS[:4]
    draws = torch.rand(4, 20000, 16, generator=torch.Generator().manual_seed(1))
    difference = weights * (drawn_factors(weights, 5, draws) - inclusion_factors(weights, 5))
    assert difference.abs().max() < 3e-3
    assert [frames_drawn(count) for count in (1, 2, 8, 16)] == [1, 1, 2, 5]
