"""The options of `method=recognizer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adafocus.core.domains import OneOf, Weight
from adafocus.methods.options import Options

PARAM_GROUPS = ("single", "tsm", "mmaction2")


@dataclass
class Recipe(Options, section="schedule", needs="method=recognizer"):
    partial_norm: bool = False  # whether to freeze every BatchNorm2d but the first
    # Rule for learning-rate and weight-decay multipliers; see
    # `adafocus.methods.recognizer.param_groups.recognizer_groups`.
    param_groups: Annotated[str, OneOf(PARAM_GROUPS)] = "single"
    head_lr_mult: Weight = 5.0  # learning-rate multiplier of the classifier if param_groups is tsm or mmaction2
