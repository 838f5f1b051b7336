"""FrameExit: order of the frames, exits, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from helpers.configs import composed

from adafocus import build
from adafocus.core.errors import UserError
from adafocus.core.frames import coarse_to_fine
from adafocus.core.variants import WHOLE_FRAMES
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.evaluation import exits, queues

TYPED = ("method=frame_exit", "dataset=glyphs", "segments=5", "dataset.frame_size=32", "dataset.val_videos=6")


def test_every_prediction_knows_the_frames_so_far_and_exits_repeat_it() -> None:
    settings = composed(*TYPED)
    stage, data = build.stage(settings, build.seeded_model(settings, 10)), build.data(settings)
    batch = next(iter(Loader(data.test, EvaluationOrder(6, 6))))
    whole = stage.exit_logits(batch)
    frames = batch.frames.clone()
    frames[:, coarse_to_fine(5)[3]] = 0  # the frame of step 3
    batch.frames = frames
    changed = stage.exit_logits(batch)
    assert torch.equal(changed[:, :3], whole[:, :3]) and not torch.equal(changed[:, 3], whole[:, 3])
    answer = stage.evaluate(batch, (WHOLE_FRAMES,))[WHOLE_FRAMES]
    assert torch.equal(answer.logits, changed[:, -1]) and answer.where is None
    (program,) = stage.model.programs()
    assert torch.allclose(program.module(stage.normalize(frames)), answer.logits, atol=1e-5)

    deferred = composed(*TYPED, "mode=early_exit", "checkpoint=x")
    lazy = next(iter(Loader(build.data(deferred).test, EvaluationOrder(6, 6))))
    limits = torch.tensor(
        [exits.NEVER, float(whole[:, 1].amax(1).median()) - 1e-4, exits.NEVER, exits.NEVER, exits.ALWAYS]
    )
    left = queues.exit_early(stage, [lazy], limits, range(5), "confidence")
    assert set(left.exits.tolist()) == {1, 4}
    assert torch.allclose(left.logits, whole[torch.arange(6), left.exits], atol=1e-5)
    cost = build.cost(settings, 10)
    assert stage.model.exit_costs(cost) == [round(cost.total * step / 5) for step in range(1, 6)]


def test_temporal_modules_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="method=frame_exit reads a frame after"):
        composed(*TYPED, "backbone=tiny_tsm")
