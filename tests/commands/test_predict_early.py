"""Tests of prediction with early exit: exits, costs and patches are those of the thresholds of an early-exit run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.configs import composed

from adafocus import build, config, predict
from adafocus.core.errors import UserError
from adafocus.evaluation.exit_rule import read_rule
from adafocus.evaluation.exits import ALWAYS, NEVER

NARROW = ("backbone.policy_hidden=16", "backbone.classifier_width=16")
METHODS = {
    "v2": ("method=adafocus_v2", "segments.glance=4", *NARROW),
    "v1": ("method=adafocus_v1", "segments.glance=4", *NARROW),
    "v2 tsm": ("method=adafocus_v2", "backbone=tiny_tsm", "segments.glance=4", "segments.focus=5", NARROW[0]),
    "uni": ("method=uni_adafocus", "segments.glance=4", "segments.focus=5", NARROW[1]),
}


def saved(folder: Path, *typed: str) -> Path:
    settings = composed(
        "dataset=folder",
        f"dataset.root={folder}",
        "dataset.frame_size=32",
        "patch.size=16",
        "evaluate.batch_size=2",
        *typed,
    )
    torch.manual_seed(0)
    model = build.model(config.for_stage(settings, settings.stage.name), 3, weights=False)
    for layer in model.modules():  # as after training: small variances make clips differ
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_var.uniform_(0.01, 0.1)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": ["a", "b", "c"]}
    torch.save(content, folder / "last.pt")
    return folder / "last.pt"


def report(folder: Path, thresholds: list[float], **more: object) -> Path:
    rows = [{"name": "full model", "budget": None, "score": 50.0, "cost": 9.0, "thresholds": None}]
    rows += [{"name": "confidence", "budget": 0.5, "score": 60.0, "cost": 5.0, "thresholds": thresholds}]
    rows += [{"name": "confidence", "budget": 0.7, "score": None, "cost": 6.0, "thresholds": thresholds[::-1]}]
    (folder / "early_exit.json").write_text(json.dumps({"rows": rows, "chunk": 1, "contract": None, **more}))
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_videos_exit_by_the_thresholds_of_a_run(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, *METHODS[name])
    videos = [np.random.default_rng(seed).integers(0, 256, (9, 40, 48, 3), dtype=np.uint8) for seed in range(5)]
    plain = predict.load(path, device="cpu")
    whole, exits = plain(videos), plain.model.num_exits
    costs = plain.exit_costs
    first = predict.load(path, device="cpu", early_exit=report(tmp_path, [ALWAYS, *[NEVER] * (exits - 2), ALWAYS]))(
        videos
    )
    assert {one.exit for one in first} == {0} and {one.cost for one in first} == {costs[0]}
    # The two videos that are surest at the first exit leave there, and the others at the end.
    limit = sorted(max(one.logits) for one in first)[-2]
    predictor = predict.load(
        path, device="cpu", early_exit=report(tmp_path, [limit - 1e-4 * abs(limit), *[NEVER] * (exits - 2), ALWAYS])
    )
    found = predictor(videos)
    assert predictor.protocol == f"{plain.protocol}; early exit by confidence, budget 0.5"
    assert [one.video for one in found] == [one.video for one in whole]
    assert sorted(one.exit for one in found) == [0, 0, exits - 1, exits - 1, exits - 1]
    for early, alone, full in zip(found, first, whole, strict=True):
        expected = alone if early.exit == 0 else full
        np.testing.assert_allclose(early.logits, expected.logits, rtol=1e-3, atol=1e-3)
        assert early.cost == costs[early.exit]
        if early.exit:
            assert sorted(early.frames) == sorted(full.frames)
            np.testing.assert_allclose(sorted(early.boxes), sorted(full.boxes), atol=1e-3)
        else:
            assert len(early.boxes) == (1 if name in ("v1", "v2") else 0)


def test_rules_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, rule = saved(tmp_path, *METHODS["v2"]), report(tmp_path, [NEVER, ALWAYS])
    with pytest.raises(UserError, match="2 thresholds and this network 4 exits"):
        predict.load(path, device="cpu", early_exit=rule)
    assert read_rule(rule).budget == 0.5 and read_rule(rule, 0.7).thresholds == (ALWAYS, NEVER)
    assert read_rule(report(tmp_path, [1.0], contract={"budget": 0.7})).budget == 0.7
    with pytest.raises(UserError, match="no budget 0.9; it has 0.5, 0.7"):
        read_rule(rule, 0.9)
    (tmp_path / "early_exit.json").write_text('{"rows": [{}], "chunk": 1}')
    with pytest.raises(UserError, match="is not what mode=early_exit"):
        read_rule(tmp_path)
    with pytest.raises(UserError, match="holds no early_exit.json"):
        read_rule(tmp_path / "nowhere")
