"""The entrants of `adafocus arena`: the ways of choosing frames, patch locations or tokens that it compares."""

from __future__ import annotations

from dataclasses import dataclass, field

_PATCHES = tuple(range(16, 225, 8))
_KEEP = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Entrant:
    """One way of choosing frames, patch locations or tokens, and the key whose value adapts its cost to a budget.

    Attributes:
        name: its name in the table.
        overrides: the overrides of `adafocus run` that define it.
        key: the configuration key that determines its cost.
        values: values of `key` to choose from, cost rising.
        also: further rows of the table that come from the same run: label of the evaluation variant -> name.
        synthetic: whether it can run on synthetic videos; False if `key` would change the videos themselves.
    """

    name: str
    overrides: tuple[str, ...]
    key: str = "patch.size"
    values: tuple[int | float, ...] = _PATCHES
    also: dict[str, str] = field(default_factory=dict)
    synthetic: bool = True


BASELINE = "whole frames, fewer"
ENTRANTS = (
    Entrant(BASELINE, ("method=recognizer",), "segments.glance", (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)),
    Entrant(
        "whole frames, smaller", ("method=recognizer",), "dataset.frame_size", tuple(range(24, 449, 8)), synthetic=False
    ),
    Entrant("random places", ("method=adafocus_v2", "method.where=random")),
    Entrant("center", ("method=adafocus_v2", "method.where=center")),
    Entrant("AdaFocus V1", ("method=adafocus_v1",)),
    Entrant("AdaFocus V2", ("method=adafocus_v2",), also={"constant patch": "constant place (mean of V2)"}),
    Entrant("AdaFocus V2, heat map", ("method=adafocus_v2", "policy=heatmap")),
    Entrant("Uni-AdaFocus", ("method=uni_adafocus",)),
    Entrant("spread frames, Uni-AdaFocus", ("method=uni_adafocus", "method.when=spread")),
    Entrant(
        "tokens",
        ("method=tokens",),
        "method.keep",
        _KEEP,
        {
            "random tokens": "random tokens (of the same network)",
            "uniform tokens": "uniform tokens (of the same network)",
        },
    ),
)
