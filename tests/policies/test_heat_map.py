"""The heat map: places that move with the subject, gradients, precision, several peaks, and the value of places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adafocus.backbones import BACKBONES
from adafocus.core.output import Output, Overrides
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
from adafocus.methods.adafocus_v2.stage import value_loss
from adafocus.policies.affine import AffinePolicy
from adafocus.policies.heat_map import HeatMapPolicy, cell_motion, corners, peaks, scores_at


def heat_map(*, patch: float = 0.25, hidden: int = 8, **options) -> HeatMapPolicy:
    torch.manual_seed(0)
    return HeatMapPolicy(6, (8, 8), patch=patch, hidden=hidden, cells=8, **options).eval()


def subject(row: int, column: int) -> Tensor:
    """A map (1, 1, 6, 8, 8) of zeros with one warm cell."""
    maps = torch.zeros(1, 1, 6, 8, 8)
    maps[..., row, column] = 3
    return maps


@pytest.mark.parametrize("window", [0.0, 0.5])
def test_the_place_moves_with_the_subject(window: float) -> None:
    policy = heat_map(window=window)
    with torch.no_grad():
        policy.score[-1].weight.mul_(3000)  # sharp, as after training
        if policy.scores(subject(4, 4)).flatten().argmax() not in range(27, 46):  # the subject repels: turn the sign
            policy.score[-1].weight.mul_(-1)
        there, moved = (policy.places(policy.scores(subject(*at))) for at in ((3, 3), (4, 5)))
    step = torch.tensor([1, 2]) / 8 / (1 - policy.patch)  # cells, as fractions of the largest offset
    torch.testing.assert_close(moved - there, step.view(1, 1, 2), atol=1e-4, rtol=0)


def test_it_has_hundreds_of_times_fewer_weights() -> None:
    ours, papers = (
        sum(parameter.numel() for parameter in policy.parameters())
        for policy in (HeatMapPolicy(1280, (4, 4), patch=0.25), AffinePolicy(1280, (4, 4)))
    )
    assert papers > 500 * ours


@pytest.mark.parametrize("options", [{}, {"window": 0.0}, {"peaks": 2, "per_clip": True}], ids=str)
def test_the_crop_has_a_gradient_through_the_place(options: dict) -> None:
    policy = heat_map(**options).train()
    places = policy.places(policy.scores(torch.rand(3, 2, 6, 8, 8)))
    assert places.shape == (3, 2, 2) and ((places >= 0) & (places <= 1)).all()
    (places * torch.rand_like(places)).sum().backward()
    assert all(
        parameter.grad.abs().sum() > 0 for name, parameter in policy.named_parameters() if name != "score.2.bias"
    )


def test_it_stays_in_float32_under_autocast() -> None:
    policy, maps = heat_map(), torch.rand(2, 3, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        scores = policy.scores(maps.bfloat16())
        assert scores.dtype == policy.places(scores).dtype == torch.float32
    torch.testing.assert_close(scores, policy.scores(maps.bfloat16().float()))


def test_peaks_are_apart_and_from_left_to_right() -> None:
    scores = torch.zeros(1, 8, 8)
    scores[0, 2, 6], scores[0, 2, 5], scores[0, 5, 1] = 90.0, 80.0, 70.0  # the second best is beside the best
    found = peaks(scores, 2, window=0.1, apart=0.25)
    torch.testing.assert_close(found, torch.tensor([[[5.5, 1.5], [2.5, 6.5]]]) / 8)
    middle = peaks(torch.zeros(1, 8, 8), 1, window=0.0, apart=0.25)
    torch.testing.assert_close(middle, torch.full((1, 1, 2), 0.5))


def test_places_are_inside_the_frame() -> None:
    assert corners(torch.tensor([0.0, 1.0]), 0.25).tolist() == [0.0, 1.0]
    assert corners(torch.tensor([0.5, 0.125]), 0.25).tolist() == [0.5, 0.0]


def test_scores_between_cells() -> None:
    scores = torch.arange(4.0).expand(1, 4, 4)  # the score is the column
    at = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    torch.testing.assert_close(scores_at(scores, at, 0.25), torch.tensor([[1.5, 3.0]]))


def test_patches_are_where_most_moves_before_anything_is_learned() -> None:
    policy = heat_map(motion=True, per_clip=True, peaks=2, apart=1.5)
    motion = torch.zeros(1, 2, 8, 8)
    motion[..., 1:3, 1:3], motion[..., 5:7, 4:7] = 1, 2
    places = policy.places(policy.scores(torch.rand(1, 2, 6, 8, 8), motion))
    centers = places * (1 - policy.patch) + policy.patch / 2
    torch.testing.assert_close(centers, torch.tensor([[[2.0, 2.0], [6.0, 5.5]]]) / 8, atol=0.07, rtol=0)
    with pytest.raises(ValueError, match="cell_motion"):
        policy.scores(torch.rand(1, 2, 6, 8, 8))


def test_motion_is_where_frames_change() -> None:
    frames = torch.zeros(1, 3, 3, 8, 8)
    frames[0, 1:, :, 0:2, 4:6] = 1
    motion = cell_motion(frames, (4, 4))
    assert motion.shape == (1, 3, 4, 4) and motion[0, 0, 0, 2] == 2 * motion[0, 1, 0, 2] > 0
    assert motion.count_nonzero() == 2  # nothing moves after the second frame
    torch.testing.assert_close(motion, cell_motion(3 * frames, (4, 4)), rtol=1e-3, atol=0)
    assert cell_motion(frames[:, :1], (4, 4)).count_nonzero() == 0


def backbone(kind: str) -> torch.nn.Module:
    return BACKBONES[f"tiny_{kind}"](channels=(4, 8))


def make(patch: float, **options):
    """The `policy` argument of a network."""

    def policy(channels: int, map_size: tuple[int, int], segments: int, hidden: int) -> HeatMapPolicy:
        return HeatMapPolicy(channels, map_size, patch=patch, segments=segments, hidden=8, **options)

    return policy


def on_tsm(consensus: str = "average", **options) -> AdaFocusV2TSM:
    torch.manual_seed(0)
    policy = make(12 / 32, per_clip=True, **options)
    shape = {"glance_segments": 2, "focus_segments": 3, "patch_size": 12, "frame_size": 32, "glance_size": 16}
    networks = backbone("glance"), backbone("focus")
    return AdaFocusV2TSM(*networks, num_classes=3, policy=policy, consensus=consensus, **shape)


@pytest.mark.parametrize("consensus", ["average", "change"])
def test_two_patches_are_two_networks_of_one_patch(consensus: str) -> None:
    """The logits of several patches are the mean of those of each alone."""
    network, frames = on_tsm(peaks=2, motion=True, consensus=consensus).eval(), torch.rand(2, 5, 3, 32, 32)
    with torch.no_grad():
        both = network(frames)
        single = [network(frames, Overrides(where=both.where[:, at : at + 1])) for at in (0, 1)]
    assert both.where.shape == (2, 2, 2) and network.crop_values == 2 * 3 * 3 * 12**2
    torch.testing.assert_close(both.logits, (single[0].logits + single[1].logits) / 2)
    torch.testing.assert_close(both.place_logits, torch.cat([one.place_logits for one in single], 1))


def test_motion_alone_forgets_what_was_learned() -> None:
    network, frames = on_tsm(peaks=2, motion=True).eval(), torch.rand(2, 5, 3, 32, 32)
    with torch.no_grad():
        glance = network.glance(frames[:, :2])
        at_first = network.decide(glance).where
        torch.nn.init.normal_(network.policy.score[-1].weight, std=100)
        assert not torch.allclose(network.decide(glance).where, at_first)
        torch.testing.assert_close(network.decide(glance, Overrides(motion=True)).where, at_first)


def test_steps_answer_as_the_whole_network() -> None:
    torch.manual_seed(0)
    network = AdaFocusV2(
        *(backbone("glance"), backbone("focus")),
        **{"num_classes": 3, "segments": 4, "patch_size": 12, "frame_size": 32, "classifier_width": 8},
        policy=make(12 / 32),
    ).eval()
    frames = torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        whole = network(frames)
        state, steps = {"frames": network.first_frames(frames)}, []
        for number in range(4):
            logits, state = network.step(number, state, lambda wanted: frames[torch.arange(2)[:, None], wanted])
            steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), whole.exit_logits)


def test_scores_learn_the_value_of_places() -> None:
    """Scores that differ as the log-probabilities do have no loss, whatever their mean."""
    label, patch = torch.tensor([0, 1]), 0.25
    places = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0))
    scores = torch.randn(2, 1, 8, 8, requires_grad=True)
    logits = torch.randn(2, 2, 3)
    said = [rows.log_softmax(-1)[torch.arange(2), label] for rows in logits.unbind(1)]
    output, other = (
        Output(logits, where=places[:, at : at + 1], place_logits=logits[:, at : at + 1], scores=scores)
        for at in (0, 1)
    )
    output.diversity = other
    value = scores_at(scores[:, 0], places, patch)
    expected = ((value[:, 0] - value[:, 1] - (said[0] - said[1])) / 2).square().mean()
    loss = value_loss(output, label, patch)
    torch.testing.assert_close(loss, expected)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(value_loss(output, label, patch), scores)
        with torch.no_grad():
            scores -= gradient
    assert value_loss(output, label, patch) < 1e-3 * loss
