"""Small networks of every method and stage, and batches for single training steps."""

from __future__ import annotations

import torch
from helpers.configs import composed

from adafocus import build, config
from adafocus.core.batch import Batch

SMALL = (
    "dataset.frame_size=64",
    "patch.size=32",
    "dataset.glyph_size=8",
    "schedule.batch_size=2",
    "backbone.policy_hidden=16",
)
WIDE = "backbone.classifier_width=16"
TSM = ("backbone=tiny_tsm", "segments.glance=4")
CASES = {
    "v1 glance": ("method=adafocus_v1", "segments=4", "stage=glance", WIDE),
    "v1 2": ("method=adafocus_v1", "segments=4", "stage=2", WIDE),
    "v1 2 padding": ("method=adafocus_v1", "segments=4", "stage=2", "policy.reward=padding", WIDE),
    "v1 2, four updates": (
        "method=adafocus_v1",
        "segments=4",
        "stage=2",
        "policy.epochs=2",
        "policy.minibatches=2",
        WIDE,
    ),
    "v1 3": ("method=adafocus_v1", "segments=4", "stage=3", WIDE),
    "v1 1 tsm": ("method=adafocus_v1", *TSM, "segments.focus=6", "stage=1"),
    "v1 2 tsm": ("method=adafocus_v1", *TSM, "segments.focus=6", "stage=2"),
    "v2": ("method=adafocus_v2", "segments=4", WIDE),
    "v2 tsm": ("method=adafocus_v2", *TSM, "segments.focus=6"),
    "uni": ("method=uni_adafocus", "segments.glance=4", "segments.focus=3", "patch.smallest=16", WIDE),
    "uni draws": (
        "method=uni_adafocus",
        "segments=4",
        "policy.draws=8",
        "schedule.kl_weight=0.1",
        "patch.smallest=16",
        WIDE,
    ),
    "uni tsm": ("method=uni_adafocus", *TSM, "segments.focus=3", "patch.smallest=16"),
    "tsn": ("method=recognizer", "segments=4"),
    "tsm": ("method=recognizer", *TSM),
    "tam": ("method=recognizer", "backbone=tiny_tam", "segments.glance=4"),
}


def settings_of(name: str, *more: str) -> config.Config:
    typed = [*SMALL, *CASES[name], "backbone.weights=none", *more]
    needed = {
        "method=recognizer": ("patch.size", "backbone.policy_hidden"),
        "method=uni_adafocus": ("backbone.policy_hidden",),
    }
    drop = needed.get(CASES[name][0], ())
    if any(item in CASES[name] for item in ("stage=1", "stage=2", "stage=3")):
        typed.append("init.from=none")
    settings = composed(*(item for item in typed if not item.startswith(drop or ("-",))))
    return config.for_stage(settings, settings.stage.name)


def batch_of(settings: config.Config, size: int = 2) -> Batch:
    side, frames = settings.dataset.frame_size, build.frame_plan(settings).clip
    shape = (size, frames, side, side, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(clips, torch.arange(size)[:, None] % 10, torch.arange(size), 0, torch.ones(size, dtype=torch.bool))
