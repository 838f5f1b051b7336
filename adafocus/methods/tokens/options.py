"""The options of `method=tokens` (TokenFocus)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from adafocus.core.domains import Between, Count, Length
from adafocus.methods.options import Options

_TOKENS = "method=tokens"
_Keep = Annotated[float, Between(0.001, 1)]


@dataclass
class Tokens(Options, section="method", needs=_TOKENS):
    keep: _Keep = 0.1  # share of all cells of a clip that the transformer sees in evaluation; any value after training
    groups: Count = 4  # number of groups of tokens; early exit may stop after each


@dataclass
class KeepRange(Options, section="schedule", needs=_TOKENS):
    # Smallest and largest share of the cells in training; each step samples a share between them.
    keep_range: Annotated[list[_Keep], Length(2, 2)] = field(default_factory=lambda: [0.05, 0.5])


OWN: frozenset[type[Options]] = frozenset((Tokens, KeepRange))
