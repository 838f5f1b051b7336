"""AdaFocus V2 on networks that join frames (TSM): glance at some frames, focus on one patch of others."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.core.output import Output
from adafocus.layers.crop import SquarePatches, crop
from adafocus.layers.heads import TwoHeads
from adafocus.policies.stacked import StackedPolicy


class AdaFocusV2TSM(SquarePatches, nn.Module):
    """The short-video network of AdaFocus V2: the sum of what two TSM networks say, one of them of patches.

    Args:
        glance, focus: backbones with temporal modules for `glance_segments` and `focus_segments` frames.
        num_classes: K.
        glance_segments, focus_segments: frames that each of them sees; the clip holds both, one after the other.
        patch_size, frame_size: in pixels.
        policy_hidden: of the policy.
        dropout: before the heads.

    Source: AdaFocus V2, arXiv 2112.14238; spec adafocus_v2 section 2.4.
    """

    #: Places that are looked at in a video.
    places = 1

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
    ) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        self.glance, self.focus = glance, focus
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.patch_size, self.frame_size = patch_size, frame_size
        self.policy = StackedPolicy(glance.width, glance_segments, glance.map_size(frame_size), policy_hidden)
        self.glance_head = TwoHeads(glance.width, num_classes, dropout)
        self.focus_head = TwoHeads(focus.width, num_classes, dropout)

    parts = {
        "glance": ("glance",),
        "policy": ("policy",),
        "focus": ("focus",),
        "head": ("glance_head.predict", "focus_head.predict"),
        "auxiliary glance": ("glance_head.learn",),
        "auxiliary focus": ("focus_head.learn",),
    }

    @property
    def crop_values(self) -> int:
        """Values that are blended to cut the patches of a video."""
        return self.focus_segments * 3 * self.patch_size**2

    def forward(
        self, frames: Tensor, where: Tensor | None = None, diversity: Tensor | None = None, auxiliary: bool = True
    ) -> Output:
        """
        Args:
            frames: (B, T_glance + T_focus, 3, S, S), normalized: the glance frames in temporal order, then the focus frames.
            where: (B, 1, 2) the corner to look at; None asks the policy.
            diversity: (B, 1, 2) the corner of another pass through the focus network. It comes before the policy's, in the
                order of the released code, which decides what BatchNorm's running statistics see last.
            auxiliary: whether the logits of the learning heads are wanted.

        Returns:
            One step: `steps`, `glance` and `focus` are (B, 1, K).
        """
        if frames.shape[1] != self.glance_segments + self.focus_segments:
            raise ValueError(
                f"this network takes {self.glance_segments} glance and {self.focus_segments} focus frames, not "
                f"{frames.shape[1]} in all"
            )
        glanced, focused = frames.split([self.glance_segments, self.focus_segments], 1)
        maps = self.glance(glanced.flatten(0, 1)).unflatten(0, glanced.shape[:2])
        glance = self.glance_head(maps.mean((-2, -1)), auxiliary)
        if where is None:
            where = self.policy(maps.detach())[:, None]
        other = None if diversity is None else self.look(focused, diversity, glance, auxiliary)
        output = self.look(focused, where, glance, auxiliary)
        output.diversity = other
        return output

    def look(self, frames: Tensor, where: Tensor, glance: tuple[Tensor, Tensor | None], auxiliary: bool) -> Output:
        """(B, F, 3, S, S) focus frames at (B, 1, 2) to an answer; `glance` are the logits of the glance network's heads."""
        corners = where.expand(-1, frames.shape[1], -1).flatten(0, 1)
        features = self.focus(crop(frames.flatten(0, 1), corners, self.patch_size)).mean((-2, -1))
        predicted, learned = self.focus_head(features.unflatten(0, frames.shape[:2]), auxiliary)
        logits = glance[0] + predicted
        steps = [None if part is None else part[:, None] for part in (logits, glance[1], learned)]
        return Output(logits, steps[0], where, glance=steps[1], focus=steps[2])
