"""AdaFocus V2 on TSM backbones: glance at some frames, focus on one patch location in others.

Source: AdaFocus V2 (arXiv 2112.14238); LeapLabTHU/AdaFocusV2, experiments on Something-Something and Jester, class
`AdaFocus` in main.py and class `TSN` in ops/models.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import crop
from adafocus.layers.heads import TwoHeads, change_features
from adafocus.layers.resize import resized
from adafocus.methods.network import GlanceExit
from adafocus.methods.options import CONSENSUSES
from adafocus.policies.heat_map import HeatMapPolicy, cell_motion
from adafocus.policies.stacked import StackedPolicy


class AdaFocusV2TSM(GlanceExit):
    """AdaFocus V2 for short videos: the sum of the logits of two TSM networks, one on whole frames and one on patches.

    A clip holds the glance frames in temporal order, then the focus frames.

    Args:
        glance, focus: backbones with temporal modules for `glance_segments` and `focus_segments` frames.
        num_classes: number of classes K.
        glance_segments, focus_segments: numbers of frames G and F that the two networks see.
        policy_hidden: hidden width of the policy.
        dropout: dropout probability before the heads.
        consensus: how the frames of a network are joined: "average" (the mean of their logits) or "change" (logits of
            `layers.heads.change_features` of all frames, for each patch location).
        policy: factory of the policy, called as `adafocus.policies` describes. If it makes a `HeatMapPolicy` with
            several peaks, the focus network sees a patch at each of them, and its logits are averaged over the patches.
        Others: see `AdaptiveNetwork`.
    """

    focus_fields = ("logits",)
    place_per_frame = False
    answers_at_glance = True
    parts = (
        Part("glance", ("glance_net",)),
        Part("policy", ("policy",)),
        Part("focus", ("focus_net",)),
        Part("head", ("glance_head.predict", "focus_head.predict")),
        Part("glance", ("glance_head.learn",), auxiliary=True),
        Part("focus", ("focus_head.learn",), auxiliary=True),
    )

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        policy_hidden: int = 1024,
        dropout: float = 0.5,
        consensus: str = "average",
        policy: Callable[..., nn.Module] = StackedPolicy,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, **options)
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.first_candidate = glance_segments
        self.policy = policy(
            channels=glance.width,
            map_size=glance.map_size(self.glance_size),
            segments=glance_segments,
            hidden=policy_hidden,
        )
        self.num_places = 1
        if isinstance(self.policy, HeatMapPolicy):
            self.num_places = self.policy.peaks
            if self.policy.motion:
                self.decide_fields = ("maps", "motion")
        self.glance_fields = (*self.decide_fields, "logits")
        if consensus not in CONSENSUSES:
            raise ValueError(f"consensus must be one of {CONSENSUSES}")
        self.change = consensus == "change"
        widths = [(3 if self.change else 1) * net.width for net in (glance, focus)]
        self.glance_head, self.focus_head = (TwoHeads(width, num_classes, dropout) for width in widths)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of frames of each network; the two see different frames."""
        return {"glance_frames": self.glance_segments, "focus_frames": self.focus_segments}

    @property
    def crop_values(self) -> int:
        """Number of pixel values that cropping a video computes: every patch location is cut from all focus frames."""
        return self.num_places * super().crop_values

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """Selects the first `glance_segments` frames of a clip."""
        if frames.shape[1] != self.glance_segments + self.focus_segments:
            raise ValueError(
                f"this network takes {self.glance_segments} glance and {self.focus_segments} focus frames, not "
                f"{frames.shape[1]} in all"
            )
        return frames[:, : self.glance_segments]

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Selects the frames of a clip after the glance frames."""
        return frames[:, self.glance_segments :]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network and its heads on frames (B, G, 3, S, S); `aux_logits` are (B, 1, K)."""
        seen = resized(frames.flatten(0, 1), self.glance_size, self.glance_resize)
        maps = self.glance_net(seen).unflatten(0, frames.shape[:2])
        features = maps.mean((-2, -1))
        read = change_features(features)[:, None] if self.change else features
        logits, learned = self.glance_head(read, auxiliary)
        motion = None
        if isinstance(self.policy, HeatMapPolicy) and self.policy.motion:
            motion = cell_motion(seen.unflatten(0, frames.shape[:2]), self.policy.cells)
        return GlanceOutput(maps, features, logits, None if learned is None else learned[:, None], motion=motion)

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the mean (B, K) of the auxiliary logits of the frames."""
        learned = glance.aux_logits
        return given(self.glance_head(glance.features)[1]) if learned is None else learned.mean(1)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Chooses the patch locations (B, num_places, 2), which apply to all focus frames of a video."""
        if overrides is not None and overrides.where is not None:
            return Plan(overrides.where)
        if isinstance(self.policy, HeatMapPolicy):
            if overrides is not None and overrides.motion:
                return Plan(self.policy.places(self.policy.motion_scores(given(glance.motion))))
            where, scores = self.policy(glance.maps.detach(), glance.motion)
            return Plan(where, scores=scores)
        return Plan(self.policy(glance.maps.detach())[:, None])

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on the same patch locations of all focus frames (B, F, 3, S, S).

        There is one prediction per video: `steps`, `aux_glance` and `aux_focus` are (B, 1, K).
        """
        flat, count = frames.flatten(0, 1), plan.where.shape[1]
        corners = [place.repeat_interleave(frames.shape[1], 0) for place in plan.where.unbind(1)]
        patches = [crop(flat, corner, self.patch_size) for corner in corners]
        features = self.focus_net(patches[0] if count == 1 else torch.cat(patches)).mean((-2, -1))
        # With P patches, (P * B * F, D) to (B, P * F, D): the backbone's temporal modules need a patch's F frames
        # to be adjacent.
        features = features.unflatten(0, (count, *frames.shape[:2])).transpose(0, 1).flatten(1, 2)
        if self.change:
            features = change_features(features.unflatten(1, (count, -1)))  # (B, P, 3 D)
        predicted, learned, _ = self.focus_head.per_frame(features, auxiliary)
        logits = given(glance.logits) + predicted.mean(1)
        steps, first = logits[:, None], glance.aux_logits
        return Output(
            logits,
            steps,
            plan.where,
            exit_logits=None if first is None else torch.cat([first, steps], 1),
            aux_glance=first,
            aux_focus=None if learned is None else learned.mean(1, keepdim=True),
            place_logits=None if learned is None else learned.unflatten(1, (count, -1)).mean(2),
            scores=plan.scores,
        )

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """Focuses at the plan's locations and at those in `diversity`, which come first, as in the repository.

        The order matters for the running statistics of BatchNorm, which weight the last pass most.
        """
        other = self.focus(frames, replace(plan, where=diversity), glance, auxiliary)
        return self.focus(frames, plan, glance, auxiliary), other
