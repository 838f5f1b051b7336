"""The entrants of `adafocus arena`: the ways of choosing frames, patch locations or tokens that it compares."""

from __future__ import annotations

from dataclasses import dataclass, field

_PATCHES = tuple(range(16, 449, 4))
_FRAMES = (*range(1, 13), *range(14, 25, 2), 32, 48, 64)
_KEEP = (
    0.02,
    0.025,
    *(number / 100 for number in (3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 100)),
)


@dataclass(frozen=True, eq=False)
class Entrant:
    """One way of choosing frames, patch locations or tokens, and the key whose value adapts its cost to a budget.

    Attributes:
        name: its name in the table.
        overrides: the overrides of `adafocus run` that define it.
        key: the configuration key that determines its cost.
        values: values of `key` to choose from, cost rising.
        also: further rows of the table that come from the same run: label of the evaluation variant -> name.
        synthetic: True: only for synthetic videos; False: not for them, because `key` would change the videos
            themselves; None: for all.
        exits: 0, or how many budgets the whole network costs; early exit then brings its mean cost to the budget.
    """

    name: str
    overrides: tuple[str, ...]
    key: str = "patch.size"
    values: tuple[int | float, ...] = _PATCHES
    also: dict[str, str] = field(default_factory=dict)
    synthetic: bool | None = None
    exits: int = 0


BASELINE = "whole frames, fewer"
_TWO_EXITS = 2  # with early exit the whole network costs twice the budget
ENTRANTS = (
    Entrant(BASELINE, ("method=recognizer",), "segments.glance", _FRAMES),
    Entrant(
        "whole frames, smaller", ("method=recognizer",), "dataset.frame_size", tuple(range(24, 449, 8)), synthetic=False
    ),
    Entrant("random places", ("method=adafocus_v2", "method.where=random")),
    Entrant("center", ("method=adafocus_v2", "method.where=center")),
    Entrant("largest motion", ("method=adafocus_v2", "method.where=motion")),
    Entrant("true place (oracle)", ("method=adafocus_v2", "method.where=oracle"), synthetic=True),
    Entrant("AdaFocus V1", ("method=adafocus_v1",)),
    Entrant("AdaFocus V2", ("method=adafocus_v2",), also={"constant patch": "constant place (mean of V2)"}),
    Entrant("AdaFocus V2, early exit", ("method=adafocus_v2",), exits=_TWO_EXITS),
    Entrant("AdaFocus V2, heat map", ("method=adafocus_v2", "policy=heatmap")),
    Entrant("AdaFocus V2, two patches", ("method=adafocus_v2", "policy=two")),
    Entrant("Uni-AdaFocus", ("method=uni_adafocus",)),
    Entrant("Uni-AdaFocus, spread frames", ("method=uni_adafocus", "method.when=spread")),
    Entrant("FrameExit", ("method=frame_exit",), "segments.glance", _FRAMES, exits=_TWO_EXITS),
    Entrant(
        "OCSampler",
        ("method=ocsampler",),
        "segments.focus",
        _FRAMES,
        {
            "random frames": "random frames (of the same network)",
            "frames of largest difference": "frames of largest difference (of the same network)",
        },
    ),
    Entrant(
        "tokens",
        ("method=tokens",),
        "method.keep",
        _KEEP,
        {
            "random tokens": "random tokens (of the same network)",
            "uniform tokens": "uniform tokens (of the same network)",
            "largest difference tokens": "tokens of largest difference (of the same network)",
        },
    ),
)
