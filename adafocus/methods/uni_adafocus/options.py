"""The options of `method=uni_adafocus`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adafocus.core.domains import Amount, Between, Count, NotNegative, OneOf, Weight
from adafocus.methods.options import Options

WHEN = ("learned", "spread")

_UNI = "method=uni_adafocus"


@dataclass
class Rectangle(Options, section="patch", needs=_UNI):
    # Smallest side of a rectangle in pixels; None: 3/7 of the frame's side, 96 of 224.
    smallest: Annotated[int, Between(1, 4096)] | None = None


@dataclass
class When(Options, section="method", needs=_UNI):
    when: Annotated[str, OneOf(WHEN)] = "learned"  # how focus frames are chosen


@dataclass
class PolicyWidths(Options, section="backbone", needs=_UNI):
    spatial_hidden: Count = 128  # hidden width of the spatial policy
    temporal_hidden: Count = 64  # hidden width of the temporal policy


@dataclass
class TemporalPolicy(Options, section="policy", needs=_UNI):
    temperature: Amount = 1.0  # softmax temperature of the weights that choose frames
    # Number of Monte Carlo samples for the temporal logits (128 in the authors' repository); 0: exact, in closed form.
    draws: NotNegative = 0


@dataclass
class Losses(Options, section="schedule", needs=_UNI):
    size_weight: Weight = 1.0  # weight of the loss term that favors large rectangles
    kl_weight: Weight = 0.0  # weight of the KL term that favors uniform frame weights


OWN: frozenset[type[Options]] = frozenset((Rectangle, When, PolicyWidths, TemporalPolicy, Losses))
