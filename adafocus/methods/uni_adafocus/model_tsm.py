"""Uni-AdaFocus for short videos, on TSM backbones: chooses frames, and one rectangle for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adafocus.backbones import Backbone
from adafocus.core.cost import Part
from adafocus.core.output import GlanceOutput, Output, Plan, given
from adafocus.layers.heads import TwoHeads
from adafocus.layers.resize import resized
from adafocus.methods.network import GlanceExit
from adafocus.methods.uni_adafocus.base import UniAdaFocusBase


class UniAdaFocusTSM(UniAdaFocusBase, GlanceExit):
    """Uni-AdaFocus for short videos: one rectangle for all chosen frames; the prediction is the sum of two networks'
    logits.

    The glance frames are a set of their own; in a training clip the candidates follow them.

    Args:
        dropout: dropout probability before the heads.
        remove_background: subtract from every pixel its mean over the frames that the network sees, in both networks.
        Others: see `UniAdaFocusBase`.

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, "Uni-AdaFocus-TSM" (Something-Something and
    Jester).
    """

    single_place = True
    num_places = 1
    place_per_frame = False
    glance_fields = ("maps", "features", "logits")
    focus_fields = ("logits",)
    parts = (
        Part("glance", ("glance_net",)),
        Part("frame policy", ("frame_policy",)),
        Part("spatial policy", ("spatial_policy",)),
        Part("focus", ("focus_net",)),
        Part("head", ("glance_head.predict", "focus_head.predict")),
        Part("glance", ("glance_head.learn",), auxiliary=True),
        Part("focus", ("focus_head.learn",), auxiliary=True),
        Part("spatial", ("spatial_head",), auxiliary=True, published=False),
    )

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        dropout: float = 0.5,
        remove_background: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, num_classes=num_classes, **options)
        self.remove_background, self.first_candidate = remove_background, self.glance_segments
        self.glance_head = TwoHeads(glance.width, num_classes, dropout)
        self.focus_head = TwoHeads(focus.width, num_classes, dropout)

    def glance_positions(self, offsets: Tensor | None = None) -> Tensor:
        """Returns the indices (1, G) of the glance frames, always the first G of the clip."""
        return torch.arange(self.glance_segments, device=self.spatial_head.weight.device)[None]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network and its heads on frames (B, G, 3, S, S)."""
        seen = resized(frames.flatten(0, 1), self.glance_size, self.glance_resize).unflatten(0, frames.shape[:2])
        maps = self.glance_net(self._foreground(seen).flatten(0, 1)).unflatten(0, frames.shape[:2])
        predicted, learned, dropped = self.glance_head.per_frame(maps.mean((-2, -1)), auxiliary)
        return GlanceOutput(maps, dropped, predicted.mean(1), learned)

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the mean (B, K) of the auxiliary logits of the glance frames."""
        learned = glance.aux_logits
        return given(self.glance_head(glance.features)[1]) if learned is None else learned.mean(1)

    def focus_features(self, patches: Tensor) -> Tensor:
        """Runs the focus network on patches (B, F, 3, P, P), without their background if `remove_background` is set."""
        return super().focus_features(self._foreground(patches))

    def _foreground(self, frames: Tensor) -> Tensor:
        return frames - frames.mean(1, keepdim=True) if self.remove_background else frames

    def answer(self, glance: GlanceOutput, features: Tensor, plan: Plan, auxiliary: bool) -> Output:
        """Combines the glance output and the focus features (B, F, D) into the prediction.

        `steps`, `aux_glance` and `aux_focus` are (B, 1, K). There are two exits: the glance network's auxiliary logits,
        and the final prediction.
        """
        predicted, learned, _ = self.focus_head.per_frame(features, auxiliary)
        logits = given(glance.logits) + predicted.mean(1)
        steps = logits[:, None]
        output = Output(logits, steps, plan.where, plan.frames, plan.weights, plan.rectangles)
        if glance.aux_logits is not None:
            output.aux_glance = glance.aux_logits.mean(1, keepdim=True)
            output.per_frame = glance.aux_logits.detach()
            output.exit_logits = torch.cat([output.aux_glance, steps], 1)
        if learned is not None:
            output.aux_focus = learned.mean(1, keepdim=True)
        return output
