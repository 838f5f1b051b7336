"""AdaFocus V2 on TSM backbones: glance at some frames, focus on one patch location in others.

Source: AdaFocus V2 (arXiv 2112.14238); LeapLabTHU/AdaFocusV2, experiments on Something-Something and Jester, class
`AdaFocus` in main.py and class `TSN` in ops/models.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from adafocus.core.cost import Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.crop import crop
from adafocus.layers.heads import TwoHeads
from adafocus.methods.network import AdaptiveNetwork
from adafocus.policies.stacked import StackedPolicy


class AdaFocusV2TSM(AdaptiveNetwork):
    """AdaFocus V2 for short videos: the sum of the logits of two TSM networks, one on whole frames and one on patches.

    A clip holds the glance frames in temporal order, then the focus frames.

    Args:
        glance, focus: backbones with temporal modules for `glance_segments` and `focus_segments` frames.
        num_classes: number of classes K.
        glance_segments, focus_segments: numbers of frames G and F that the two networks see.
        patch_size, frame_size: sides of the square patches and frames in pixels.
        policy_hidden: hidden width of the policy.
        dropout: dropout probability before the heads.
        policy: makes the policy; see `adafocus.policies`.
    """

    num_places = 1
    glance_fields = ("maps", "logits")
    focus_fields = ("logits",)
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
        glance: nn.Module,
        focus: nn.Module,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        patch_size: int,
        frame_size: int = 224,
        policy_hidden: int = 1024,
        dropout: float = 0.5,
        policy: Callable[..., nn.Module] = StackedPolicy,
    ) -> None:
        super().__init__(glance, focus, patch_size=patch_size, frame_size=frame_size)
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.policy = policy(
            channels=glance.width, map_size=glance.map_size(frame_size), segments=glance_segments, hidden=policy_hidden
        )
        self.glance_head = TwoHeads(glance.width, num_classes, dropout)
        self.focus_head = TwoHeads(focus.width, num_classes, dropout)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of frames in the sets of the two networks, which see different frames."""
        return {"glance_frames": self.glance_segments, "focus_frames": self.focus_segments}

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """The first `glance_segments` frames of a clip."""
        if frames.shape[1] != self.glance_segments + self.focus_segments:
            raise ValueError(
                f"this network takes {self.glance_segments} glance and {self.focus_segments} focus frames, not "
                f"{frames.shape[1]} in all"
            )
        return frames[:, : self.glance_segments]

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """The frames of a clip after the glance frames."""
        return frames[:, self.glance_segments :]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Glance network and its heads on frames (B, G, 3, S, S); `aux_logits` are (B, 1, K)."""
        maps = self.glance_net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        features = maps.mean((-2, -1))
        logits, learned = self.glance_head(features, auxiliary)
        return GlanceOutput(maps, features, logits, None if learned is None else learned[:, None])

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """One patch location (B, 1, 2) per video."""
        if overrides is not None and overrides.where is not None:
            return Plan(overrides.where)
        return Plan(self.policy(glance.maps.detach())[:, None])

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Focus network on the same patch location of all focus frames (B, F, 3, S, S).

        There is one prediction per video: `steps`, `aux_glance` and `aux_focus` are (B, 1, K).
        """
        corners = plan.where.expand(-1, frames.shape[1], -1).flatten(0, 1)
        features = self.focus_net(crop(frames.flatten(0, 1), corners, self.patch_size)).mean((-2, -1))
        predicted, learned = self.focus_head(features.unflatten(0, frames.shape[:2]), auxiliary)
        logits = glance.logits + predicted
        return Output(
            logits,
            logits[:, None],
            plan.where,
            aux_glance=glance.aux_logits,
            aux_focus=None if learned is None else learned[:, None],
        )

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """See `AdaptiveNetwork.focus_twice`; the pass at `diversity` comes first, as in the repository.

        The order matters for the running statistics of BatchNorm, which weight the last pass most.
        """
        other = self.focus(frames, replace(plan, where=diversity), glance, auxiliary)
        return self.focus(frames, plan, glance, auxiliary), other
