"""OCSampler: its choice in one step, its reward, and its controls."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from helpers.configs import composed

from adafocus import build
from adafocus.core.errors import UserError
from adafocus.core.variants import GLANCE_ALONE
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder
from adafocus.methods.ocsampler.stage import LEARNED, OTHERS
from adafocus.policies.one_step import draw_frames

TYPED = ("method=ocsampler", "dataset=glyphs", "segments.glance=4", "segments.focus=2", "dataset.frame_size=32")


def test_the_probability_of_a_draw_is_exact() -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    weights = scores.exp()[0]
    first = weights[[2, 0]] / weights.sum()
    draws = torch.tensor([[0.9, 0.1, 0.99, 0.1]])  # frames 2 and 0 win
    chosen, log_probability = draw_frames(scores, 2, draws)
    assert chosen.tolist() == [[0, 2]]
    order = [2, 0]
    expected = first[0] * weights[0] / (weights.sum() - weights[2])
    assert torch.isclose(log_probability.exp()[0], expected) and order == [2, 0]
    total = sum(
        weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a]) for a, b in permutations(range(4), 2)
    )
    assert torch.isclose(total, torch.tensor(1.0))
    everything, certain = draw_frames(scores, 4, draws)
    assert everything.tolist() == [[0, 1, 2, 3]] and bool(certain.isfinite())
    drawn = [
        draw_frames(scores, 1, torch.rand(1, 4, generator=torch.Generator().manual_seed(i)))[0] for i in range(500)
    ]
    share = sum(int(frame) == 2 for frame in drawn) / 500
    assert abs(share - float(weights[2] / weights.sum())) < 0.07


def test_the_policy_is_rewarded_for_frames_that_are_better_than_even_ones() -> None:
    """Only frame 3 makes the label probable; after some steps on the policy alone it is chosen."""
    settings = composed(*TYPED, "segments.focus=1", "dataset.train_videos=16")
    stage, data = build.stage(settings, build.seeded_model(settings, 10)), build.data(settings)
    batch = next(iter(Loader(data.train, TrainOrder(16, 16))))
    optimizer = torch.optim.Adam(stage.model.policy.parameters(), lr=0.02)
    label = batch.labels[:, 0]

    def focus(frames, plan, glance, auxiliary=False):
        good = (plan.frames == 3).float()
        logits = 4 * good * torch.nn.functional.one_hot(label, 10)
        output = type(stage.model).focus(stage.model, frames, plan, glance, auxiliary)
        return replace(output, logits=logits.detach())

    stage.model.focus = focus
    for epoch in range(30):
        optimizer.zero_grad()
        stage.step(replace(batch, epoch=epoch)).loss.backward()
        optimizer.step()
    del stage.model.focus
    answer = stage.evaluate(batch, (LEARNED,))[LEARNED]
    assert (answer.frames == 3).float().mean() > 0.9


def test_controls_choose_by_their_rules_and_do_not_pay_for_the_glance() -> None:
    settings = composed(*TYPED, "dataset.val_videos=6")
    stage, data = build.stage(settings, build.seeded_model(settings, 10)), build.data(settings)
    batch = next(iter(Loader(data.test, EvaluationOrder(6, 6))))
    batch.frames[:, 2:] = batch.frames[:, 2:].roll(5, -2)  # a jump between frames 1 and 2
    spread, random, difference = OTHERS
    answers = stage.evaluate(batch, stage.variants)
    assert answers[spread].frames.tolist() == [[1, 3]] * 6
    assert all(2 in frames for frames in answers[difference].frames.tolist())
    assert len({tuple(frames) for frames in answers[random].frames.tolist()}) > 1
    assert answers[LEARNED].where is None and answers[GLANCE_ALONE].logits.shape == (6, 10)
    costs = stage.costs(cost := build.cost(settings, 10))
    assert costs[spread] == costs[LEARNED] - cost.of("glance", "policy") == cost.of("focus", "head")


def test_more_chosen_frames_than_there_are_is_one_line() -> None:
    with pytest.raises(UserError, match=r"segments.focus=5 frames cannot be chosen of segments.glance=4"):
        composed(*TYPED, "segments.focus=5")
