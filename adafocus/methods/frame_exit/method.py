"""FrameExit (arXiv 2104.13400): whole frames in coarse-to-fine order, until the prediction is sure enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, coarse_to_fine
from adafocus.methods import options as shared
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options

if TYPE_CHECKING:
    from torch import nn

    from adafocus.backbones.base import Backbone
    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network


class FrameExitMethod(Method):
    """A network on whole frames that predicts after every one of them."""

    name = "frame_exit"
    has_glance = False

    @property
    def exits_early(self) -> bool:
        """True: there is an exit after every frame."""
        return True

    @property
    def widths(self) -> Widths:
        """The classifier is that of AdaFocus V2."""
        return Widths(None, 4096)

    @property
    def options(self) -> frozenset[type[Options]]:
        return super().options | {shared.Dropout, shared.FrozenNorm}

    def check(self) -> None:
        super().check()
        backbone = self.config.backbone
        if self.on_tsm or backbone.adaptive or backbone.non_local or backbone.temporal_pool:
            raise UserError(
                "method=frame_exit reads a frame after its prediction for those before, so temporal modules cannot mix "
                "frames: set backbone.shift=none, or choose a backbone without temporal modules"
            )

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """The network sees all frames of a clip; in early exit they are decoded one by one."""
        count = self.config.segments.glance
        if not deferred:
            return FramePlan(count)
        return FramePlan(count, candidates=count, first=(coarse_to_fine(count)[0],))

    def network(self, glance: Backbone | None, focus: Backbone, num_classes: int) -> Network:
        """Builds a `FrameExit` on the backbone `focus`; `glance` is None."""
        """See `Method.network`; `glance` is None."""
        from adafocus.methods.frame_exit.model import FrameExit

        return FrameExit(
            focus,
            num_classes=num_classes,
            segments=self.config.segments.glance,
            frame_size=self.config.dataset.frame_size,
            **self.values(shared.ClassifierWidth, shared.Dropout),
        )

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.core.stage import batch_norms
        from adafocus.methods.frame_exit.stage import FrameExitStage

        frozen = batch_norms(network) if self.config.schedule.freeze_norm else []
        return FrameExitStage(network, normalize, frozen_norm=frozen)
