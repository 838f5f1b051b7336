"""FrameExit (arXiv 2104.13400): whole frames in a fixed coarse-to-fine order, with an exit after each."""

from __future__ import annotations

import torch
from torch import Tensor

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost, Part
from adafocus.core.frames import coarse_to_fine
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.heads import PooledStepClassifier
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.programs import Call, Program


class NoGlance(Backbone):
    """Stands in for a glance network: feature maps without channels."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) to maps (N, 0, 1, 1)."""
        return images[:, :0, :1, :1]


class FrameExit(AdaFocusV2):
    """One network on whole frames in coarse-to-fine order; after each, a classifier of the running maximum predicts.

    It is AdaFocus V2 without glance and patches: AdaFocus V2 took its order of frames and its classifier
    (`PooledStepClassifier`) from FrameExit.

    Unlike the paper it has no gates, small networks that learn to say when to stop: clips exit by the thresholds of
    `mode=early_exit`, which are computed on training videos for a given mean cost.

    Args:
        focus: a backbone (see `adafocus.backbones`).
        num_classes, segments: number of classes K and of frames T.
        frame_size: side of the square frames in pixels.
        classifier_width, dropout: hidden width and dropout probability of the classifier.
    """

    answers_at_glance = False
    parts = (Part("focus", ("focus_net",)), Part("head", ("classifier",)))
    crop_values = 0

    def __init__(
        self,
        focus: Backbone,
        *,
        num_classes: int,
        segments: int,
        frame_size: int = 224,
        classifier_width: int = 4096,
        dropout: float = 0.2,
    ) -> None:
        super(AdaFocusV2, self).__init__(NoGlance(), focus, patch_size=frame_size, frame_size=frame_size)
        self.segments = self.num_places = self.num_exits = segments
        self.classifier = PooledStepClassifier(focus.width, num_classes, segments, classifier_width, dropout)
        self.register_buffer("order", torch.tensor(coarse_to_fine(segments)), persistent=False)

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Returns maps without channels and features (B, T', 0), because this method has no glance network."""
        maps = self.glance_net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return GlanceOutput(maps, maps[..., 0, 0])

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None, state: Tensor | None = None) -> Plan:
        """Returns the fixed order of the frames, and locations (B, T', 2) that have no effect."""
        count, steps = glance.maps.shape[:2]
        frames = self.order.expand(count, -1) if steps == self.segments else None
        return Plan(glance.maps.new_zeros(count, steps, 2), frames)

    def focus(
        self,
        frames: Tensor,
        plan: Plan,
        glance: GlanceOutput,
        auxiliary: bool = False,
        *,
        first: int = 0,
        running_max: Tensor | None = None,
        answers: int | None = None,
    ) -> Output:
        """See `AdaFocusV2.focus`; the network sees the whole frames (B, T', 3, S, S)."""
        features = self.focus_net(frames.flatten(0, 1)).mean((-2, -1)).unflatten(0, frames.shape[:2])
        steps, running_max = self.classifier(features, running_max, first, answers=answers)
        return Output(steps[:, -1], steps, frames=plan.frames, exit_logits=steps, running_max=running_max)

    def programs(self) -> list[Program]:
        """See `Network.programs`: there is one, frames -> logits."""
        frames = {"frames": self.segments}
        return [Program("focus", Call(self, lambda net, x: net(x).logits), ("frames",), ("logits",), frames)]

    def exit_costs(self, cost: Cost) -> list[int]:
        """See `EarlyExitNetwork.exit_costs`; every frame costs the same."""
        return [round(cost.total * (step + 1) / self.segments) for step in range(self.segments)]
