"""Recognition on whole frames: TSN, TSM, NL-TSM, online TSM and TAM, depending on the backbone's temporal modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adafocus.core.frames import FramePlan
from adafocus.methods.base import Method

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage


class RecognizerMethod(Method):
    """A backbone on whole frames; the prediction is the mean of the frames' logits."""

    name = "recognizer"
    has_glance = False
    reads_flow = True

    @property
    def any_number_of_frames(self) -> bool:
        """Without temporal modules logits are averaged over any number of frames (TSN)."""
        backbone = self.config.backbone
        return not (self.on_tsm or backbone.adaptive or backbone.non_local or backbone.temporal_pool)

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`."""
        own = ("partial_norm", "param_groups", "head_lr_mult", "freeze_norm")
        return super().reads | {"method.remove_background", *(f"schedule.{name}" for name in own)}

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """The only network sees all frames of a clip."""
        return FramePlan(self.config.segments.glance)

    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """See `Method.network`; `glance` is None."""
        from adafocus.methods.recognizer.model import Recognizer

        return Recognizer(
            focus,
            num_classes=num_classes,
            segments=self.config.segments.glance,
            dropout=self.config.schedule.head_dropout,
            remove_background=self.config.method.remove_background,
            causal=self.config.backbone.shift == "online",
        )

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """See `Method.stage`."""
        from adafocus.methods.recognizer.stage import WholeFrames

        schedule = self.config.schedule
        return WholeFrames(
            network,
            normalize,
            groups=schedule.param_groups,
            head_rate=schedule.head_lr_mult,
            flow=self.config.dataset.modality == "flow",
            norms="partial" if schedule.partial_norm else "frozen" if schedule.freeze_norm else "all",
        )
