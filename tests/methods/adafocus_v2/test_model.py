from __future__ import annotations

import pytest
import torch
from helpers.golden_cases import Case
from torch import nn

from adafocus.backbones import BACKBONES
from adafocus.core.frames import coarse_to_fine
from adafocus.core.output import Overrides
from adafocus.layers.heads import PooledStepClassifier
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.recognizer.model import Recognizer
from adafocus.policies.affine import AffinePolicy


def tiny(segments: int = 5, classes: int = 7, **changes) -> AdaFocusV2:
    torch.manual_seed(0)
    arguments = {
        "num_classes": classes,
        "segments": segments,
        "patch_size": 12,
        "frame_size": 30,
        "glance_size": 15,
        "glance_resize": "area",
        "policy_hidden": 8,
        "classifier_width": 16,
        "dropout": 0.0,
        "head_dropout": 0.0,
        **changes,
    }
    return AdaFocusV2(BACKBONES["tiny_glance"](channels=(4, 8)), BACKBONES["tiny_focus"](channels=(6, 10)), **arguments)


@pytest.mark.parametrize("segments", [4, 8, 10, 12, 16, 32])
def test_golden_processing_orders(segments: int) -> None:
    assert coarse_to_fine(segments) == Case("adafocus_v2_sampling")[f"input_order_{segments}"].tolist()


@pytest.mark.parametrize("segments", range(1, 40))
def test_every_order_is_a_permutation(segments: int) -> None:
    assert sorted(coarse_to_fine(segments)) == list(range(segments))


def test_shapes_and_names_of_the_answer() -> None:
    output = tiny().eval()(torch.rand(3, 5, 3, 30, 30))
    assert output.logits.shape == (3, 7) and output.steps.shape == (3, 5, 7)
    assert output.where.shape == (3, 5, 2) and output.where.min() > 0 and output.where.max() < 1
    assert output.aux_glance.shape == output.aux_focus.shape == (3, 5, 7)
    assert output.frames.tolist() == [coarse_to_fine(5)] * 3 and output.diversity is None
    assert torch.equal(output.logits, output.steps[:, -1])


def test_outputs_are_in_processing_order() -> None:
    model = tiny().eval()
    frames = torch.rand(1, 5, 3, 30, 30)
    ordered = tiny(order="temporal").eval()
    torch.testing.assert_close(model(frames).steps, ordered(frames[:, coarse_to_fine(5)]).steps)
    assert not torch.allclose(model(frames).steps, ordered(frames).steps)


def test_later_frames_change_no_earlier_step() -> None:
    model = tiny().eval()
    frames = torch.rand(1, 5, 3, 30, 30)
    changed = frames.clone()
    changed[:, coarse_to_fine(5)[3:]] = 0
    before, after = model(frames).steps, model(changed).steps
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3], after[:, 3])


def test_given_places_replace_the_policy() -> None:
    model = tiny().eval()
    where = torch.full((2, 5, 2), 0.25)
    model.policy.forward = lambda *_: pytest.fail("the policy was asked")
    assert torch.equal(model(torch.rand(2, 5, 3, 30, 30), Overrides(where)).where, where)


def test_the_policy_learns_through_the_crop_and_the_glance_does_not_through_the_policy() -> None:
    model = tiny().train()
    output = model(torch.rand(2, 5, 3, 30, 30))
    output.aux_focus.sum().backward()
    assert model.policy.corner.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.glance_net.parameters())


def test_the_second_pass_has_batch_statistics_of_its_own_and_comes_second() -> None:
    model = tiny().train()
    frames, where = torch.rand(2, 5, 3, 30, 30), torch.rand(2, 5, 2)
    seen = []
    model.focus_net.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().clone()))
    output = model(frames, Overrides(diversity=where))
    assert len(seen) == 2 and int(model.classifier.norm.num_batches_tracked) == 2
    assert int(model.glance_net.layers[1].num_batches_tracked) == 1
    assert output.diversity.aux_glance is output.aux_glance and torch.equal(output.diversity.where, where)
    from adafocus.layers.crop import crop

    ordered = frames[:, coarse_to_fine(5)]
    torch.testing.assert_close(seen[1], crop(ordered.flatten(0, 1), where.flatten(0, 1), 12))


def test_the_classifier_is_the_released_loop() -> None:
    torch.manual_seed(0)
    head = PooledStepClassifier(6, 3, 4, width=5).eval()
    features = torch.randn(2, 4, 6)
    pooled = torch.zeros(2, 5)
    for step in range(4):
        hidden = torch.relu(head.norm(head.hidden(features[:, step])))
        pooled = torch.maximum(pooled, hidden)
        expected = pooled @ head.weight[step].T + head.bias[step]
        torch.testing.assert_close(head(features)[0][:, step], expected)


def test_steps_can_be_taken_one_by_one() -> None:
    torch.manual_seed(0)
    head, policy = PooledStepClassifier(6, 3, 4, width=5).eval(), AffinePolicy(6, (2, 2), hidden=8).eval()
    features, maps = torch.randn(2, 4, 6), torch.randn(2, 4, 6, 2, 2)
    seen = state = None
    for step in range(4):
        logits, seen = head(features[:, step : step + 1], seen, step)
        where, state = policy(maps[:, step : step + 1], state)
        torch.testing.assert_close(logits[:, 0], head(features)[0][:, step])
        torch.testing.assert_close(where[:, 0], policy(maps)[0][:, step])


def test_half_precision_keeps_places_and_logits_wide() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny().train()(torch.rand(2, 5, 3, 30, 30), Overrides(diversity=torch.rand(2, 5, 2)))
    for value in (output.where, output.steps, output.aux_glance, output.aux_focus):
        assert value.dtype == torch.float32


@pytest.mark.parametrize(("size", "patch", "segments"), [(31, 31, 1), (33, 17, 2), (64, 63, 3)])
def test_odd_sizes_and_few_frames(size: int, patch: int, segments: int) -> None:
    model = tiny(segments=segments, frame_size=size, patch_size=patch, glance_size=None).eval()
    assert model(torch.rand(2, segments, 3, size, size)).steps.shape == (2, segments, 7)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_size": 31}, "31 pixels does not fit"),
        ({"order": "random"}, "order"),
        ({"glance_resize": "nearest"}, "glance_resize"),
    ],
)
def test_impossible_networks_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tiny(**changes)


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 5 frames a clip, not 4"):
        tiny()(torch.rand(1, 4, 3, 30, 30))


def test_a_recognizer_averages_its_frames() -> None:
    torch.manual_seed(0)
    model = Recognizer(BACKBONES["tiny_focus"](channels=(6, 10)), num_classes=4, segments=3, dropout=0.0).eval()
    frames = torch.rand(2, 3, 3, 30, 30)
    each = torch.stack([model(frames[:, i : i + 1].expand(-1, 3, -1, -1, -1)).logits for i in range(3)], 1)
    torch.testing.assert_close(model(frames).logits, each.mean(1))
    assert isinstance(model.head, nn.Linear) and not model.head.bias.any()
