from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.configs import composed

from adafocus import build
from adafocus.backbones import BACKBONES
from adafocus.core.batch import Batch
from adafocus.core.errors import UserError
from adafocus.core.stage import batch_norms
from adafocus.core.variants import patch_variant
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.data.transforms import Normalize
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.stage import JointStage
from adafocus.policies.heat_map import HeatMapPolicy
from adafocus.training.optimizer import make_optimizer
from adafocus.training.settings import Settings

RATES = {"policy": 0.1, "glance": 0.5, "focus": 1.0, "classifier": 5.0}


def stage(**changes) -> JointStage:
    torch.manual_seed(0)
    glance, focus = BACKBONES["tiny_glance"](channels=(4, 8)), BACKBONES["tiny_focus"](channels=(6, 10))
    model = AdaFocusV2(
        glance, focus, num_classes=3, segments=4, patch_size=12, frame_size=32, policy_hidden=8, classifier_width=16
    )
    return JointStage(model, Normalize((0.5,) * 3, (0.25,) * 3), **{"seed": 1, "rates": RATES, **changes})


def batch(indices: list[int], epoch: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (9, 4, 32, 32, 3), dtype=torch.uint8, generator=rng)[indices]
    labels = torch.tensor([[index % 3, -1, -1] for index in indices])
    return Batch(frames, labels, torch.tensor(indices), epoch, torch.ones(len(indices), dtype=torch.bool))


def settings(**changes) -> Settings:
    import numpy as np

    return Settings(**{"epochs": 1, "steps_per_epoch": 1, "rates": np.ones(1), "seed": 0, **changes})


def test_groups_and_their_rates_are_the_recipes() -> None:
    groups = stage().param_groups()
    assert [(group.name, group.rate) for group in groups] == [
        ("policy", 0.1),
        ("glance", 0.5),
        ("glance head", 0.5),
        ("focus", 1.0),
        ("focus head", 1.0),
        ("classifier", 5.0),
    ]
    named = sum(parameter.numel() for group in groups for parameter in group.parameters)
    assert named == sum(parameter.numel() for parameter in stage().model.parameters())


def test_every_part_moves_in_one_step_and_every_gradient_is_there() -> None:
    learner = stage()
    optimizer = make_optimizer(learner, settings(weight_decay=0.0))
    before = {name: value.clone() for name, value in learner.model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    learner.train()
    learner.step(batch([0, 1, 2, 3])).loss.backward()
    optimizer.step()
    for name, value in learner.model.named_parameters():
        assert value.grad is not None and not torch.equal(value, before[name]), name


def test_the_loss_is_half_the_sum_of_its_six_parts() -> None:
    learner = stage()
    learner.train()
    result = learner.step(batch([0, 1]))
    parts = [value for name, value in result.metrics.items() if name.startswith("loss_")]
    assert len(parts) == 6
    torch.testing.assert_close(result.loss, sum(parts) / 2)


@pytest.mark.parametrize("where", ["random", "center"])
def test_a_control_trains_no_policy(where: str) -> None:
    learner = stage(where=where)
    make_optimizer(learner, settings())
    assert not any(parameter.requires_grad for parameter in learner.model.policy.parameters())
    learner.train()
    learner.step(batch([0, 1])).loss.backward()
    assert learner.variants[0] == patch_variant(where) and patch_variant("learned") not in learner.variants


def test_random_patches_depend_on_the_clip_and_not_on_its_batch() -> None:
    learner = stage()
    together = learner.places("random", batch([2, 5, 7], epoch=3))
    assert torch.equal(learner.places("random", batch([5], epoch=3)), together[1:2])
    assert not torch.equal(learner.places("random", batch([5], epoch=4)), together[1:2])


def test_controls_answer_from_one_look_at_the_data() -> None:
    learner = stage()
    answers = learner.evaluate(batch([0, 1, 2], epoch=-1), learner.answerable)
    assert [variant.label for variant in answers] == ["learned patch", "random patch", "center patch", "glance alone"]
    assert torch.equal(answers[patch_variant("center")].where, torch.full((3, 4, 2), 0.5))
    assert not learner.model.training
    alone = stage(controls=False)
    assert alone.variants == (patch_variant("learned"),)
    assert alone.evaluate(batch([0]), alone.variants)[alone.variants[0]].aux_glance is None


def test_frozen_norms_keep_their_statistics() -> None:
    learner = stage()
    learner.frozen_norm = batch_norms(learner.model)
    before = [layer.running_mean.clone() for layer in learner.frozen_norm]
    learner.train()
    learner.step(batch([0, 1]))
    assert all(torch.equal(layer.running_mean, old) for layer, old in zip(learner.frozen_norm, before, strict=True))
    assert learner.model.training


def test_unknown_ways_to_choose_are_refused() -> None:
    with pytest.raises(ValueError, match="learned, random, center"):
        stage(where="best")


def with_heat_map(**changes) -> JointStage:
    torch.manual_seed(0)
    glance, focus = BACKBONES["tiny_glance"](channels=(4, 8)), BACKBONES["tiny_focus"](channels=(6, 10))
    shape = {"num_classes": 3, "segments": 4, "patch_size": 12, "frame_size": 32, "classifier_width": 16}
    options = {"patch": 12 / 32, "through_crop": changes.pop("through_crop", True)}
    model = AdaFocusV2(glance, focus, policy_hidden=8, policy=partial(HeatMapPolicy, **options), **shape)
    return JointStage(model, Normalize((0.5,) * 3, (0.25,) * 3), **{"seed": 1, "rates": RATES, **changes})


@pytest.mark.parametrize(
    ("through_crop", "places_weight", "learns"), [(True, 0.0, True), (False, 1.0, True), (False, 0.0, False)]
)
def test_what_a_heat_map_learns_from(through_crop: bool, places_weight: float, learns: bool) -> None:
    learner = with_heat_map(through_crop=through_crop, places_weight=places_weight)
    learner.train()
    result = learner.step(batch([0, 1, 2, 3]))
    result.loss.backward()
    moved = sum(one.grad.abs().sum() for one in learner.model.policy.parameters() if one.grad is not None)
    assert (moved > 0) == learns
    assert ("loss_value" in result.metrics) == bool(places_weight)


def test_without_diversity_there_is_one_pass() -> None:
    learner = stage(diversity=False)
    learner.train()
    result = learner.step(batch([0, 1]))
    parts = [value for name, value in result.metrics.items() if name.startswith("loss_")]
    assert len(parts) == 3
    torch.testing.assert_close(result.loss, sum(parts))


def test_frozen_parameters_and_statistics_stay() -> None:
    learner = stage()
    learner.freeze("focus_net.layers.0|glance_net")
    optimizer = make_optimizer(learner, settings(weight_decay=0.1))
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    learner.train()
    learner.step(batch([0, 1, 2, 3])).loss.backward()
    optimizer.step()
    for name, value in learner.model.state_dict().items():
        if name.startswith(("focus_net.layers.0", "glance_net")):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(learner.model.classifier.bias, before["classifier.bias"])
    names = [group.name for group in learner.learning_groups()]
    assert "glance" not in names and "focus" in names
    for pattern, says in (("focus_net.layer9", "beginning of no"), ("(", "not a regular expression")):
        with pytest.raises(ValueError, match=says):
            stage().freeze(pattern)


@pytest.mark.parametrize("typed", [("segments=4",), ("backbone=tiny_tsm", "segments.glance=4", "segments.focus=4")])
def test_motion_and_the_true_place_are_ways_to_look(typed: tuple[str, ...]) -> None:
    """The oracle's patches hold the whole glyph, and those at the largest motion hold a square that moves alone."""
    data_typed = ("method=adafocus_v2", "dataset=glyphs", "dataset.val_videos=6", *typed)
    settings = composed(*data_typed, "method.where=oracle")
    stage, data = build.stage(settings, build.seeded_model(settings, 10)), build.data(settings)
    batch = next(iter(Loader(data.test, EvaluationOrder(6, 6))))
    boxes = stage.model.boxes(stage.places("oracle", batch))
    order = stage.model.order if stage.model.place_per_frame else slice(4, None)
    subject = 96 * batch.subject[:, order]
    inside = (subject - boxes[..., :2] >= 8 - 1e-3) & (boxes[..., :2] + 28 - subject >= 8 - 1e-3)
    assert inside.float().mean() > (0.99 if stage.model.place_per_frame else 0.8)  # one patch for all frames of TSM

    still = torch.full_like(batch.frames, 100)
    for frame in range(still.shape[1]):
        still[:, frame, 60:70, 10 + 4 * (frame % 4) : 20 + 4 * (frame % 4)] = 255
    boxes = stage.model.boxes(stage.places("motion", replace(batch, frames=still)))
    assert ((boxes[..., 0] <= 60) & (boxes[..., 0] + 28 >= 70) & (boxes[..., 1] < 24)).all()
    with pytest.raises(UserError, match="method.where=oracle needs dataset=glyphs"):
        composed(*data_typed[:1], "dataset=folder", "dataset.root=x", "method.where=oracle")
    with pytest.raises(UserError, match="method.where=motion needs method=adafocus_v2"):
        composed("method=uni_adafocus", "dataset=glyphs", "method.where=motion")
