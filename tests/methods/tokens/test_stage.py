"""Training and evaluation of TokenFocus: controls, draws, frames that are read, and refused options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.configs import composed

from adafocus import build
from adafocus.core.batch import Batch
from adafocus.core.cost import Cost, Part
from adafocus.core.errors import UserError
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.evaluation.places import boxes_of_frames, learned_mean
from adafocus.methods.tokens import controls
from adafocus.methods.tokens.stage import TokenStage
from adafocus.processes.distributed import World

GRID = (4, 6, 6)
WORLD = World(0, 1, torch.device("cpu"))


def prepared(*typed: str):
    """A stage with a new network, its data and a batch of evaluation clips."""
    settings = composed("method=tokens", "dataset=glyphs", "dataset.val_videos=8", *typed)
    data = build.data(settings)
    stage = build.stage(settings, build.seeded_model(settings, 10))
    return stage, data, next(iter(Loader(data.test, EvaluationOrder(8, 8))))


def training_batch(data, *indices: int, epoch: int = 3) -> Batch:
    items = [data.train[epoch, index] for index in indices]
    frames, labels = torch.stack([i.frames for i in items]), torch.stack([i.labels for i in items])
    return Batch(frames, labels, torch.tensor(indices), epoch, torch.ones(len(items), dtype=torch.bool))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("method.keep=0",), "method.keep=0.0 must be between 0.001 and 1"),
        (("method.keep=1.01",), "method.keep=1.01 must be between 0.001 and 1"),
        (("schedule.keep_range=[0.5,0.1]",), r"schedule.keep_range=\[0.5,0.1\] must have the smaller share"),
        (("schedule.keep_range=[0.1]",), "schedule.keep_range=.* must be a list of 2 elements"),
        (("segments.pool=6",), "segments.pool=6 must be a multiple of segments.glance=4"),
        (("backbone.shift=bidirectional",), "without temporal modules"),
        (("method.groups=0",), "method.groups=0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_line(typed: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        composed("method=tokens", *typed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("backbone.focus=tiny_focus",), "a TinyNet is not a plain vision transformer"),
        (("dataset.frame_size=100",), "patches of 16 pixels must fill images of 100"),
        (("+backbone.focus_options.depth=x",), "backbone.focus_options do not fit backbone 'tiny_vit'"),
        (("+backbone.focus_options.layers=3",), "backbone.focus_options do not fit backbone 'tiny_vit'"),
        (("method.groups=200",), "200 groups"),
    ],
)
def test_networks_that_do_not_fit_are_one_line(typed: tuple[str, ...], said: str) -> None:
    settings = composed("method=tokens", *typed)
    with pytest.raises(UserError, match=said):
        build.meta_model(settings, 10)


def test_controls_choose_what_they_say() -> None:
    device = torch.device("cpu")
    spread = controls.uniform(GRID, device).topk(14).indices[0].sort().values
    assert set(spread.diff().tolist()) <= {5, 8, 13} and len((spread // 36).unique()) == 4
    near = controls.center(GRID, device).topk(16).indices[0]
    assert set((near % 36).tolist()) == {14, 15, 20, 21} and len((near // 36).unique()) == 4
    frames = torch.zeros(1, 4, 3, 96, 96)
    frames[0, 2, :, 32:48, 64:80] = 1.0  # cell (2, 2, 4): it differs from frame 1, and frame 3 from it
    changed = controls.difference(frames, GRID)[0].topk(2).indices
    assert set(changed.tolist()) == {2 * 36 + 16, 3 * 36 + 16}
    noise = 0.5 + 0.01 * torch.rand(1, 4, 3, 96, 96)
    noise[0, 1, :, 16:32, :16] *= torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    assert controls.unique(noise, GRID)[0].argmax() == 36 + 6


def test_every_row_of_the_table_is_measured() -> None:
    stage, data, batch = prepared()
    assert stage.needs_constant and stage.constant_place is None
    stage.constant_place = learned_mean(stage, Loader(data.train, EvaluationOrder(16, 8)), WORLD)
    keep = stage.model.count()
    assert stage.constant_place.sum() == pytest.approx(keep, abs=1e-3)  # the chosen cells of a mean clip
    outputs = stage.evaluate(batch, stage.variants)
    words = [variant.where for variant in stage.variants]
    assert words == ["learned", "constant", *controls.CHOICES[1:], "none"]
    chosen = {v.where: (o.frames, o.where) for v, o in outputs.items() if v.where != "none"}
    for word, (frames, where) in chosen.items():
        assert frames.shape == (8, keep) and where.shape == (8, keep, 2), word
        fixed = word in ("constant", "uniform", "center")
        assert bool((frames == frames[:1]).all() and (where == where[:1]).all()) == fixed, word
    again = TokenStage(stage.model, stage.normalize, seed=0, rates={})
    again.load_state_dict(stage.state_dict())
    assert torch.equal(again.constant_place, stage.constant_place)
    counted = Cost({Part("glance"): 5, Part("policy"): 3, Part("focus"): 7}, 15)
    costs = {variant.where: cost for variant, cost in stage.costs(counted).items()}
    assert costs["learned"] == 15 and costs["random"] == 12 and costs["none"] == 5


@pytest.mark.parametrize("keep", ["0.02", "0.3"])
def test_only_frames_with_chosen_cells_are_read(keep: str) -> None:
    stage, data, batch = prepared("segments.glance=2", "segments.pool=8", f"method.keep={keep}")
    assert batch.frames.shape[1] == 2  # the glance frames come with the batch
    read: dict[int, set[int]] = {}
    source = batch.source

    def reading(indices: list[int], candidates: torch.Tensor):
        for index, row in zip(indices, candidates.tolist(), strict=True):
            assert index not in read
            read[index] = set(row)
        return source(indices, candidates)

    batch.source = reading
    main = stage.variants[0]
    found = stage.evaluate(batch, (main,))[main]
    glanced = set(stage.model.first.tolist())
    for row, index in enumerate(batch.index.tolist()):
        assert read.get(index, set()) == set(found.frames[row].tolist()) - glanced
    assert any(read.values())
    whole = training_batch_of_evaluation(data)
    torch.testing.assert_close(stage.evaluate(whole, (main,))[main].logits, found.logits, rtol=1e-4, atol=1e-5)


def training_batch_of_evaluation(data) -> Batch:
    frames = torch.stack([data.test[0, index].frames for index in range(8)])
    labels = torch.stack([data.test[0, index].labels for index in range(8)])
    return Batch(frames, labels, torch.arange(8), -1, torch.ones(8, dtype=torch.bool))


def test_draws_belong_to_the_clip_and_the_number_of_tokens_to_the_step() -> None:
    stage, data, _ = prepared()
    both, alone = training_batch(data, 5, 9), training_batch(data, 9)
    drawn = stage.training_overrides(both, 0.1).thresholds[1]
    assert torch.equal(drawn, stage.training_overrides(alone, 0.1).thresholds[0])
    assert stage.drawn_keep(both) == stage.drawn_keep(training_batch(data, 5))
    other = replace(both, epoch=4)
    assert stage.drawn_keep(both) != stage.drawn_keep(other)
    keeps = [stage.drawn_keep(replace(both, epoch=epoch)) for epoch in range(200)]
    assert 0.05 <= min(keeps) < 0.06 and 0.45 < max(keeps) <= 0.5


@pytest.mark.parametrize("where", ["learned", "random"])
def test_a_step_trains_what_it_says(where: str) -> None:
    stage, data, _ = prepared(f"method.where={where}")
    stage.train()
    result = stage.step(training_batch(data, 1, 2, 3, 4))
    result.loss.backward()
    named = {group.name: group.parameters for group in stage.param_groups()}
    assert ("policy" in named) == (where == "learned")
    for name, parameters in named.items():
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters), name
    listed = {id(parameter) for parameters in named.values() for parameter in parameters}
    policy = {id(parameter) for parameter in stage.model.policy.parameters()}
    assert listed == {id(p) for p in stage.model.parameters()} - (policy if where == "random" else set())


def test_patches_are_grouped_by_frame() -> None:
    boxes = torch.arange(12.0).view(3, 4) + 1
    frames, found = boxes_of_frames(torch.tensor([4, 2, 4]), boxes)
    assert frames.tolist() == [2, 4] and found.shape == (2, 2, 4)
    assert torch.equal(found[0], torch.stack([boxes[1], torch.zeros(4)])) and torch.equal(found[1], boxes[[0, 2]])
