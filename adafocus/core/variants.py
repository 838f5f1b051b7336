"""Evaluation variants of a network: the method itself, and the controls that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One evaluation variant. `where` and `when` define what is computed; the label is only displayed.

    Attributes:
        label: the name in tables, in `summary.json` and in `adafocus compare`.
        where: how the patch location is chosen: "learned" (the policy), "random", "center", "constant" (the policy's
            mean location on the training set, the same for all clips and frames), "motion" (where the motion is
            largest, as an untrained policy that reads motion chooses it), or "none" (no patch); TokenFocus has more
            values (`methods.tokens.controls.CHOICES`).
        when: how the focus frames are chosen: "learned" (the temporal policy), "spread" (evenly spaced), or "none" (the
            focus frames are fixed).
    """

    label: str
    where: str = "none"
    when: str = "none"

    def __str__(self) -> str:
        return self.label


GLANCE_ALONE = Variant("glance alone")
WHOLE_FRAMES = Variant("whole frames")


def patch_variant(where: str, when: str = "none") -> Variant:
    """Returns the variant with a patch whose location is chosen by `where`, in frames chosen by `when`."""
    if when == "none":
        return Variant(f"{where} patch", where)
    return Variant(f"{'chosen' if when == 'learned' else when} frames, {where} patch", where, when)


def controls_of(where: str) -> tuple[str, ...]:
    """Returns the values of `Variant.where` of the controls, for a network that was trained with `where`."""
    return ("constant", "random", "center") if where == "learned" else ("random", "center")
