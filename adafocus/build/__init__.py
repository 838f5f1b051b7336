"""Configuration -> data, network, stage, settings: the only room that knows both configuration and code."""

from __future__ import annotations

from adafocus.build.clips import Data, clip_frames, data, focus_frames, protocol_line, views
from adafocus.build.network import channels, model, seeded_model, stage
from adafocus.build.recipe import rate_line, settings

__all__ = [
    "Data",
    "channels",
    "clip_frames",
    "data",
    "focus_frames",
    "model",
    "protocol_line",
    "rate_line",
    "seeded_model",
    "settings",
    "stage",
    "views",
]
