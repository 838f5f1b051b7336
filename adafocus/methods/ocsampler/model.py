"""OCSampler (arXiv 2201.04388): a network that skims all frames chooses those that another network sees whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.network import AdaptiveNetwork, Prepare, as_they_are
from adafocus.policies.frames import choose_frames
from adafocus.policies.one_step import OneStepPolicy, draw_frames


class OCSampler(AdaptiveNetwork):
    """The glance network sees G small frames; a policy chooses F of them; the focus network sees these whole.

    The prediction is the mean of the focus network's logits. `Plan.scores` is (B,), the log-probability of the choice.

    Args:
        glance, focus: backbones (see `adafocus.backbones`); temporal modules in `focus` are for F frames.
        num_classes: number of classes K.
        glance_segments, focus_segments: numbers of frames G and F.
        frame_size: side of the square frames in pixels.
        policy_hidden: hidden width of the policy.
        dropout: dropout probability before the heads.
        Others: see `AdaptiveNetwork`.
    """

    chooses_frames = True
    glance_fields = decide_fields = ("features",)
    focus_fields = ()
    parts = (
        Part("glance", ("glance_net",)),
        Part("policy", ("policy",)),
        Part("focus", ("focus_net",)),
        Part("head", ("focus_head",)),
        Part("glance", ("glance_head",), auxiliary=True),
    )
    num_places = 1
    crop_values = 0

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        frame_size: int = 224,
        policy_hidden: int = 256,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, patch_size=frame_size, frame_size=frame_size, **options)
        if focus_segments > glance_segments:
            raise ValueError(f"cannot choose {focus_segments} of {glance_segments} frames")
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.policy = OneStepPolicy(glance.width, glance_segments, policy_hidden)
        self.glance_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(focus.width, num_classes))

    @property
    def frame_sets(self) -> dict[str, int]:
        """Returns the numbers of frames that the exported programs take: glance frames and chosen frames."""
        return {"glance_frames": self.glance_segments, "chosen_frames": self.focus_segments}

    def first_frames(self, frames: Tensor) -> Tensor:
        """Returns all frames (B, G, ...), because the glance network sees them all."""
        return frames

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Returns the frames (B, F, ...) that `plan.frames` names."""
        assert plan is not None and plan.frames is not None
        return frames[torch.arange(frames.shape[0], device=frames.device)[:, None], plan.frames]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on all frames of a clip (B, G, 3, S, S)."""
        maps = self.glance_maps(frames)
        features = maps.mean((-2, -1))
        with full_precision(features):
            return GlanceOutput(maps, features, aux_logits=self.glance_head(widen(features)) if auxiliary else None)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Chooses F frames: the best ones, or in training a sample by `overrides.thresholds` (B, G)."""
        overrides = overrides or Overrides()
        whole = glance.features.new_zeros(glance.features.shape[0], self.focus_segments, 2)
        if overrides.frames is not None:
            return Plan(whole, overrides.frames)
        scores = self.policy(glance.features.detach())
        frames, log_probability = draw_frames(scores, self.focus_segments, overrides.thresholds)
        return Plan(whole, frames, scores=log_probability)

    def even_frames(self, like: Tensor) -> Tensor:
        """Returns indices (B, F) of evenly spaced frames, with the batch size B of `like`."""
        even = torch.full((like.shape[0], self.glance_segments), 1 / self.glance_segments, device=like.device)
        return choose_frames(even, self.glance_segments, self.focus_segments)

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on the chosen frames (B, F, 3, S, S); the prediction is the mean of their logits."""
        features = self.focus_net(frames.flatten(0, 1)).mean((-2, -1))
        with full_precision(features):
            per_frame = self.focus_head(widen(features)).unflatten(0, (frames.shape[0], -1))
        learned = glance.aux_logits if auxiliary else None
        return Output(
            per_frame.mean(1), frames=plan.frames, scores=plan.scores, per_frame=per_frame, aux_glance=learned
        )

    def forward(
        self,
        frames: Tensor,
        overrides: Overrides | None = None,
        auxiliary: bool = True,
        prepare: Prepare = as_they_are,
    ) -> Output:
        """See `AdaptiveNetwork.forward`; `overrides.diversity` (B, F) int64 are the frames of the second pass."""
        overrides = overrides or Overrides()
        seen = prepare(frames)
        glance = self.glance(seen, auxiliary)
        plan = self.decide(glance, overrides)
        output = self.focus(self.focus_frames(seen, plan), plan, glance, auxiliary)
        if overrides.diversity is not None:
            other = replace(plan, frames=overrides.diversity)
            output.diversity = self.focus(self.focus_frames(seen, other), other, glance, auxiliary)
        return output
