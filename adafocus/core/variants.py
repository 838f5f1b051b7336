"""Answers that a stage can give in evaluation: its own, and the controls that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One answer of a stage. Behavior follows from `where` and `when`; the label is for readers and is never parsed.

    Attributes:
        label: the name in tables, in `summary.json` and in `adafocus compare`.
        where: how the place of the patch is chosen: "learned" (the policy), "random", "center", "constant" (the mean of the
            places that were learned on the training set, the same for all clips and frames), or "none" (no patch).
        when: how the frames of the focus network are chosen: "learned" (the frame policy), "spread" (evenly), or "none"
            (there is no choice).
    """

    label: str
    where: str = "none"
    when: str = "none"

    def __str__(self) -> str:
        return self.label


GLANCE_ALONE = Variant("glance alone")
WHOLE_FRAMES = Variant("whole frames")


def patch_variant(where: str, when: str = "none") -> Variant:
    """The answer with a patch: at places that are chosen by `where`, in frames that are chosen by `when`."""
    if when == "none":
        return Variant(f"{where} patch", where)
    return Variant(f"{'chosen' if when == 'learned' else when} frames, {where} patch", where, when)


def controls_of(where: str) -> tuple[str, ...]:
    """Other ways to choose the patch that networks are asked about which were trained with `where`."""
    return ("constant", "random", "center") if where == "learned" else ("random", "center")
