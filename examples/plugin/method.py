"""Example of a method: AdaFocus V2 with one learned patch location for all videos in place of its policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.methods.adafocus_v2.method import AdaFocusV2Method

if TYPE_CHECKING:
    from torch import nn


class FixedPlaceMethod(AdaFocusV2Method):
    """The method `method=fixed_place`; it has frame plan, networks, stage and early exit of AdaFocus V2 on plain
    backbones.

    It reads `method.options.start`, the initial patch location (y, x) in [0, 1].
    """

    name = "fixed_place"

    @property
    def reads(self) -> frozenset[str]:
        """The keys that AdaFocus V2 reads, without those of its policy (see `adafocus.methods.base.Method.reads`)."""
        return super().reads - {"policy.name", "policy.options", "backbone.policy_hidden"} | {"method.options"}

    def check(self) -> None:
        """Refuses wrong options of this method (see `adafocus.methods.base.Method.check`)."""
        super().check()
        start = self.config.method.options.get("start", [0.5, 0.5])
        if not (isinstance(start, list) and len(start) == 2 and all(0 < place < 1 for place in start)):
            raise UserError(f"method.options.start={start} must be two numbers between 0 and 1")
        if self.on_tsm:
            raise UserError("method=fixed_place works on plain backbones only: choose another backbone")

    def policy(self) -> dict[str, Callable[..., nn.Module]]:
        """The policy module for the argument `policy` of `adafocus.methods.adafocus_v2.model.AdaFocusV2`."""
        from .place import FixedPlace

        start = self.config.method.options.get("start", [0.5, 0.5])
        return {"policy": lambda **_: FixedPlace(start)}
