"""Tests of the statistics of patch locations: their mean (the constant patch), spread and area, and the warning about
a policy that always looks at the same location."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import build
from adafocus.core.cost import CROP, Cost
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.evaluation.evaluate import evaluate
from adafocus.evaluation.places import (
    WHOLE,
    center_distance,
    learned_mean,
    mean_place,
    motion_share,
    place_statistics,
)
from adafocus.layers.crop import boxes
from adafocus.processes.distributed import World

WORLD = World(0, 1, torch.device("cpu"))
FORMS = {
    "v1": ("method=adafocus_v1", "stage=3", "init.from=none"),
    "v1 tsm": ("method=adafocus_v1", "backbone=tiny_tsm", "stage=3", "init.from=none"),
    "v2": ("method=adafocus_v2",),
    "v2 tsm": ("method=adafocus_v2", "backbone=tiny_tsm"),
    "uni": ("method=uni_adafocus", "patch.smallest=8"),
    "uni tsm": ("method=uni_adafocus", "backbone=tiny_tsm", "patch.smallest=8"),
}


def made(form: str) -> tuple[build.Data, build.Stage]:
    typed = [word for word in runs.arguments() if "train_videos" not in word]
    settings = composed(*typed, *FORMS[form], "dataset.train_videos=9")
    data = build.data(settings)
    stage = build.stage(settings, build.seeded_model(settings, 10, weights=False))
    with torch.no_grad():  # untrained policies choose nearly the same location in all clips
        for name, parameter in stage.model.named_parameters():
            if "policy" in name:
                parameter.mul_(3)
    return data, stage


@pytest.mark.parametrize("form", FORMS)
def test_the_constant_place_is_the_mean_of_the_learned_ones(form: str) -> None:
    """The constant location is the mean of the learned ones and is used in every frame and clip. To find it, only the
    glance network and the policy run."""
    data, stage = made(form)
    assert stage.needs_constant and not any(variant.where == "constant" for variant in stage.answerable)
    stage.model.focus_net.forward = None
    stage.constant_place = learned_mean(stage, Loader(data.train, EvaluationOrder(9, 4)), WORLD)
    del stage.model.focus_net.forward
    batch = next(iter(Loader(data.train, EvaluationOrder(9, 9))))
    learned, constant = stage.variants[0], next(v for v in stage.answerable if v.where == "constant")
    answers = stage.evaluate(batch, (learned, constant))
    assert torch.equal(stage.learned_places(batch), answers[learned].where)
    pixels = stage.model.boxes(answers[learned].where).flatten(0, 1)
    used = stage.model.boxes(answers[constant].where).flatten(0, 1)
    torch.testing.assert_close(used[0], pixels.mean(0), rtol=1e-4, atol=1e-3)
    assert torch.equal(used, used[:1].expand_as(used))
    costs = stage.costs(Cost(dict.fromkeys((*stage.model.parts, CROP), 1), 0))
    assert costs[constant] == costs[next(v for v in stage.variants if v.where == "random")] < costs[learned]


def test_a_mean_rectangle_is_the_mean_of_centers_and_sides() -> None:
    where = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    pixels = boxes(where, 64, smallest=16)
    torch.testing.assert_close(boxes(mean_place(where, pixels, 64), 64, smallest=16), pixels.mean((0, 1)))
    whole = torch.tensor([[[0.1, 0.9, 1.0, 1.0]]])  # a rectangle of the full frame has only one location
    assert mean_place(whole, boxes(whole, 64, smallest=16), 64).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_spread_and_area() -> None:
    corner = torch.tensor([[[0.0, 0.2], [0.4, 0.2]], [[0.2, 0.6], [0.6, 0.6]]])  # 2 clips of 2 frames
    found = place_statistics(corner, boxes(corner, 40, smallest=10), 40)
    assert found.spread_clips == pytest.approx((0.1 + 0.1 + 0.2 + 0.2) / 4)
    assert found.spread_frames == pytest.approx((0.2 + 0.0) / 2)
    assert (found.area_min, found.area_max) == pytest.approx((1 / 16, 1 / 16)) and found.warning is None
    assert place_statistics(corner[:, :1], boxes(corner[:, :1], 40, smallest=10), 40).spread_frames is None


def test_what_is_said_of_a_policy_that_does_not_choose() -> None:
    still = torch.full((5, 4, 2), 0.3) + 0.01 * torch.rand(5, 4, 2)
    assert "hardly moves" in place_statistics(still, boxes(still, 40, smallest=10), 40).warning
    still[:, 1] = 0.9  # a location that moves over time is a choice, even if it is the same in every clip
    assert place_statistics(still, boxes(still, 40, smallest=10), 40).warning is None
    whole = torch.rand(10, 1, 4)
    whole[..., 2:] = 0.995
    whole[0, 0, 2:] = 0.1
    found = place_statistics(whole, boxes(whole, 40, smallest=10), 40)
    assert found.whole_frames == 9 and found.area_median > WHOLE
    assert "whole frame" in found.warning and "9 of 10" in found.warning
    whole[1, 0, 2:] = 0.1
    assert place_statistics(whole, boxes(whole, 40, smallest=10), 40).warning is None


def test_the_places_of_an_evaluation_are_those_of_the_learned_patch() -> None:
    data, stage = made("v2")
    loader = Loader(data.test, EvaluationOrder(len(data.test), 5))
    report = evaluate(stage, loader, len(data.test), WORLD, variants=stage.answerable)
    where = torch.cat([stage.learned_places(batch) for batch in loader])
    alone = place_statistics(where, stage.model.boxes(where), stage.model.frame_size)
    assert replace(report.places, moving=None, covered=None) == alone
    assert 0 < report.places.moving < 1 and 0 < report.places.covered < 1
    assert report.places.clips == len(data.test)
    glance = tuple(variant for variant in stage.answerable if variant.where == "random")
    assert evaluate(stage, loader, len(data.test), WORLD, variants=glance).places is None


def test_the_motion_that_patches_hold() -> None:
    frames = torch.zeros(2, 3, 20, 20, 3, dtype=torch.uint8)
    frames[0, 1, 2:4, 2:4] = 100  # one thing blinks in the upper left corner
    frames[0, 2, 12:14, 12:14] = 100  # and another, once, in the lower right one
    corner = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(2, 3, 1, 4)
    share = motion_share(frames, corner)
    torch.testing.assert_close(share.moving, torch.tensor([2 / 3, 0.0]))
    torch.testing.assert_close(share.covered, torch.tensor([0.16, 0.16]))
    both = torch.cat([corner, corner + torch.tensor([10.0, 10.0, 0.0, 0.0])], 2)
    torch.testing.assert_close(motion_share(frames, both).moving, torch.tensor([1.0, 0.0]))
    twice = motion_share(frames, torch.cat([corner, corner], 2))
    torch.testing.assert_close(twice.covered, torch.tensor([0.16, 0.16]))
    assert center_distance(both[:, 0], torch.tensor([[4.0, 4.0, 0.0, 0.0]]), 20) == pytest.approx(2**0.5 * 10 / 20 / 2)


@pytest.mark.parametrize(
    "state",
    ["text", {"other": 1}, {"constant_place": [0.1, 0.2]}, {"constant_place": torch.tensor([0.1])}]
    + [{"constant_place": torch.tensor(value)} for value in ([0.1, 1.5], [0.1, float("nan")], [0, 1])],
    ids=str,
)
def test_a_strangers_constant_place_is_checked(state: object) -> None:
    _, stage = made("v2")
    with pytest.raises(ValueError, match="constant_place"):
        stage.load_state_dict(state)
    assert stage.constant_place is None


@pytest.mark.slow
def test_a_run_and_its_evaluation_show_the_constant_place(tmp_path: Path) -> None:
    """A run stores the constant location in its checkpoint. The evaluation of a checkpoint without it (of an older
    version) omits the row and says so."""
    printed = runs.run(tmp_path, *runs.arguments(schedule__epochs="1"), "name=a")
    folder = tmp_path / "outputs/a"
    found = runs.summary(folder)
    assert [row["name"] for row in found["rows"]][:2] == ["learned patch", "constant patch"]
    assert "learned patch locations: standard deviation" in printed and len(found["places"]["constant"]) == 2
    if found["places"]["warning"]:
        assert printed.count(found["places"]["warning"]) == 1
    assert "constant patch" in (folder / "run.log").read_text()
    assert "place_spread_clips" in next(line for line in runs.lines(folder) if line["kind"] == "evaluate")
    runs.run(tmp_path, *runs.arguments(), "mode=evaluate", "checkpoint=outputs/a", "name=b")
    again = runs.summary(tmp_path / "outputs/b")
    assert (again["rows"], again["places"]) == (found["rows"], found["places"])
    for file in ("last.pt", "best.pt"):
        state = torch.load(folder / file, weights_only=True)
        torch.save({**state, "stage": {}}, folder / file)
    printed = runs.run(tmp_path, *runs.arguments(), "mode=evaluate", "checkpoint=outputs/a", "name=c")
    assert "the constant patch is not evaluated" in printed
    assert [row["name"] for row in runs.summary(tmp_path / "outputs/c")["rows"]] == [
        row["name"] for row in found["rows"] if row["name"] != "constant patch"
    ]
