"""A predictor of TokenFocus: which frames and patches it names, and their picture; a transformer of timm inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import numbered
from helpers.configs import composed
from PIL import Image

from adafocus import build, config, predict
from adafocus.commands.drawing import draw
from adafocus.core.output import Overrides

FOLDER = ("method=tokens", "dataset=folder", "dataset.root=.", "dataset.frame_size=48", "dataset.decode_short_side=56")


def predictor(folder: Path, *typed: str) -> predict.Predictor:
    settings = composed(*FOLDER, *typed)
    model = build.seeded_model(settings, 4)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": list("abcd")}
    torch.save(content, folder / "last.pt")
    return predict.load(folder / "last.pt", device="cpu")


def test_every_token_is_named_and_drawn(tmp_path: Path) -> None:
    made = predictor(tmp_path, "segments=4", "segments.pool=8", "method.keep=0.2")
    clip = numbered.write(tmp_path / "clip.mp4", 32)
    found = made(clip)
    assert len(found.frames) == len(found.boxes) == made.model.count() == 14
    assert found.frames == sorted(found.frames) and set(found.frames) <= {2 + 4 * candidate for candidate in range(8)}
    assert len(set(zip(found.frames, found.boxes, strict=True))) == 14
    sides = {(round(box.x2 - box.x1, 3), round(box.y2 - box.y1, 3)) for box in found.boxes}
    assert sides == {(32.0, 21.333)}  # a third of each side of the video
    drawn = Image.open(draw(found, tmp_path / "look.png"))
    assert drawn.width > drawn.height  # one picture a frame, side by side
    with Image.open(draw(found, tmp_path / "look.gif")) as film:
        assert film.n_frames == len(set(found.frames))


def test_a_transformer_of_timm_gets_the_normalization_that_it_was_trained_with(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    typed = ("backbone.focus=timm/vit_tiny_patch16_224", "+backbone.focus_options.depth=2", "segments.glance=2")
    made = predictor(tmp_path, *typed).model
    frames = torch.rand(2, 2, 3, 48, 48)
    features = made.encoder.backbone
    glance = made.glance(frames)
    plan = made.decide(glance, Overrides(torch.arange(18).expand(2, -1)))
    answer = made.focus(frames, plan, glance).logits
    by_hand = torch.addcmul((features.clip_mean - 0.5) / 0.5, frames, features.clip_std / 0.5)
    features.given = []
    torch.testing.assert_close(made.focus(by_hand, plan, glance).logits, answer)
    assert (made.focus(frames, plan, glance).logits - answer).abs().max() > 1e-3
