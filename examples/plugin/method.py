"""Example of a method: AdaFocus V2 with one learned patch location for all videos in place of its policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from adafocus.core.domains import Above, Below, Length
from adafocus.core.errors import UserError
from adafocus.methods.adafocus_v2.method import AdaFocusV2Method
from adafocus.methods.adafocus_v2.options import Policy
from adafocus.methods.options import Options, PolicyWidth

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Start(Options):
    """Options of `method=fixed_place`, in the section `method.options`."""

    # Initial patch location (y, x) in (0, 1), as a fraction of the largest offset.
    start: Annotated[list[Annotated[float, Above(0), Below(0, 1)]], Length(2, 2)] = field(
        default_factory=lambda: [0.5, 0.5]
    )


class FixedPlaceMethod(AdaFocusV2Method):
    """`method=fixed_place`, with frame plan, networks, stage and early exit of AdaFocus V2 on plain backbones."""

    name = "fixed_place"

    @property
    def options(self) -> frozenset[type[Options]]:
        """The options of AdaFocus V2 without those of its policy, and `Start`; see `adafocus.methods.base.Method`."""
        return super().options - {Policy, PolicyWidth} | {Start}

    def check(self) -> None:
        """Refuses wrong options of this method (see `adafocus.methods.base.Method.check`)."""
        super().check()
        if self.on_tsm:
            raise UserError("method=fixed_place works on plain backbones only: choose another backbone")

    def policy(self) -> dict[str, Callable[..., nn.Module]]:
        """The policy module for the argument `policy` of `adafocus.methods.adafocus_v2.model.AdaFocusV2`."""
        from .place import FixedPlace

        start = self.read(Start).start
        return {"policy": lambda **_: FixedPlace(start)}
