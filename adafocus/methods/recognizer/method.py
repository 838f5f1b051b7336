"""Recognition on whole frames: TSN, TSM, NL-TSM, online TSM and TAM, depending on the backbone's temporal modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan
from adafocus.methods import options as shared
from adafocus.methods.base import Method
from adafocus.methods.options import Options
from adafocus.methods.recognizer.options import Recipe

if TYPE_CHECKING:
    from torch import nn

    from adafocus.backbones import Backbone
    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network


class RecognizerMethod(Method):
    """A backbone on whole frames; the prediction is the mean of the frames' logits."""

    name = "recognizer"
    has_glance = False
    reads_flow = True

    @property
    def any_number_of_frames(self) -> bool:
        """True without temporal modules (TSN), where the prediction is a mean over frames."""
        backbone = self.config.backbone
        return not (self.on_tsm or backbone.adaptive or backbone.non_local or backbone.temporal_pool)

    @property
    def options(self) -> frozenset[type[Options]]:
        return super().options | {shared.Background, shared.Consensus, Recipe, shared.FrozenNorm}

    def check(self) -> None:
        super().check()
        if self.config.schedule.partial_norm and self.config.schedule.freeze_norm:
            raise UserError("schedule.partial_norm and schedule.freeze_norm exclude each other; set one to false")

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Returns a plan without glance frames: the network sees all frames of a clip."""
        return FramePlan(self.config.segments.glance)

    def network(self, glance: Backbone | None, focus: Backbone, num_classes: int) -> Network:
        """Builds a `Recognizer` on the backbone `focus`; `glance` is None."""
        from adafocus.methods.recognizer.model import Recognizer

        return Recognizer(
            focus,
            num_classes=num_classes,
            segments=self.config.segments.glance,
            dropout=self.config.schedule.head_dropout,
            causal=self.config.backbone.shift == "online",
            **self.values(shared.Background, shared.Consensus),
        )

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.methods.recognizer.stage import WholeFrames

        schedule, recipe = self.config.schedule, self.read(Recipe)
        return WholeFrames(
            network,
            normalize,
            groups=recipe.param_groups,
            head_rate=recipe.head_lr_mult,
            flow=self.config.dataset.modality == "flow",
            norms="partial" if recipe.partial_norm else "frozen" if schedule.freeze_norm else "all",
        )
