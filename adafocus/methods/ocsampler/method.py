"""OCSampler (arXiv 2201.04388): chooses whole frames in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan
from adafocus.methods import options as shared
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network
    from adafocus.methods.ocsampler.model import OCSampler


class OCSamplerMethod(Method):
    """Skims all frames at low resolution, and sees the chosen ones whole."""

    name = "ocsampler"
    train_frames = test_frames = "fractional"
    lr_parts = needed_lr_parts = ("glance", "focus", "policy")

    @property
    def widths(self) -> Widths:
        """The width of the policy; each network has a classifier of its own."""
        return Widths(256, None)

    @property
    def options(self) -> frozenset[type[Options]]:
        """See `Method.options`; there are no patches."""
        return super().options - {shared.Patch} | {shared.GlanceSize, shared.GlanceResize, shared.FrozenNorm}

    def check(self) -> None:
        backbone, plan = self.config.backbone, self.frame_plan()
        if backbone.adaptive or backbone.non_local or backbone.temporal_pool:
            raise UserError(
                "method=ocsampler supports no other temporal module than the shift: choose another backbone"
            )
        if plan.focus > plan.glance:
            raise UserError(
                f"segments.focus={plan.focus} frames cannot be chosen of segments.glance={plan.glance}; lower "
                f"segments.focus"
            )

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """All frames are skimmed, and half of them chosen unless segments.focus says otherwise."""
        glance = self.config.segments.glance
        focus = self.config.segments.focus or max(1, glance // 2)
        return FramePlan(glance, focus, candidates=glance, first=tuple(range(glance)))

    def network_class(self) -> Callable[..., Network]:
        from adafocus.methods.ocsampler.model import OCSampler

        return OCSampler

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the network; there are no patches."""
        plan = self.frame_plan()
        return {
            "glance_segments": plan.glance,
            "focus_segments": plan.focus,
            "frame_size": self.config.dataset.frame_size,
            "dropout": self.config.schedule.head_dropout,
            **self.values(shared.GlanceSize, shared.GlanceResize, shared.PolicyWidth),
        }

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.methods.ocsampler.stage import OCSamplerStage

        values = self.values(shared.Controls)
        return OCSamplerStage(cast("OCSampler", network), normalize, **values, **self.stage_arguments(network))
