"""AdaFocus V2 on plain backbones: glance at every frame, focus on one patch of each, predict after every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adafocus.core.choices import GLANCE_RESIZES, ORDERS
from adafocus.core.frames import coarse_to_fine
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.crop import crop
from adafocus.layers.heads import PooledStepClassifier
from adafocus.layers.precision import full_precision, widen
from adafocus.layers.resize import resized
from adafocus.methods.network import EarlyExitNetwork, Prepare, Reader, Walk, as_they_are
from adafocus.policies.affine import AffinePolicy


class AdaFocusV2(EarlyExitNetwork):
    """The untrimmed-video network of AdaFocus V2.

    Args:
        glance, focus: backbones (see `adafocus.backbones`).
        num_classes: K.
        segments: T, frames of a clip; both networks see all of them.
        patch_size: P, in pixels.
        frame_size: side of the square frames.
        glance_size: side of the frames that the glance sees; None: frame_size.
        glance_resize: "aligned": bilinear with aligned corners, no antialiasing (the released code); "area": the mean
            over what a pixel covers.
        policy_hidden, classifier_width, dropout, head_dropout: of policy, classifier and auxiliary heads.
        order: "coarse_to_fine" or "temporal". The verbs take and return frames and steps in this order; `forward` takes
            frames in temporal order.
        policy: makes the policy; see `adafocus.policies`.

    Source: AdaFocus V2 (arXiv 2112.14238) section 3; class `AdaFocus` of the released ActivityNet program.
    """

    budgets, first_power = tuple(number / 10 for number in range(5, 40)), 1
    shares_frames = True
    step_classifiers = ("classifier",)
    parts = {
        "glance": ("glance_net",),
        "policy": ("policy",),
        "focus": ("focus_net",),
        "head": ("classifier",),
        "auxiliary glance": ("glance_head",),
        "auxiliary focus": ("focus_head",),
    }

    def __init__(
        self,
        glance: nn.Module,
        focus: nn.Module,
        *,
        num_classes: int,
        segments: int,
        patch_size: int,
        frame_size: int = 224,
        glance_size: int | None = None,
        glance_resize: str = "aligned",
        policy_hidden: int = 2048,
        classifier_width: int = 4096,
        dropout: float = 0.2,
        head_dropout: float = 0.2,
        order: str = "coarse_to_fine",
        policy: Callable[..., nn.Module] = AffinePolicy,
    ) -> None:
        super().__init__(glance, focus, patch_size=patch_size, frame_size=frame_size)
        if glance_resize not in GLANCE_RESIZES or order not in ORDERS:
            raise ValueError(f"glance_resize must be one of {GLANCE_RESIZES} and order one of {ORDERS}")
        self.segments = self.num_places = self.num_exits = segments
        self.glance_size, self.glance_resize = glance_size or frame_size, glance_resize
        self.policy = policy(
            channels=glance.width, map_size=glance.map_size(self.glance_size), segments=segments, hidden=policy_hidden
        )
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(focus.width, num_classes))
        self.classifier = PooledStepClassifier(
            glance.width + focus.width, num_classes, segments, classifier_width, dropout
        )
        steps = coarse_to_fine(segments) if order == "coarse_to_fine" else list(range(segments))
        self.register_buffer("order", torch.tensor(steps), persistent=False)

    @property
    def frame_sets(self) -> dict[str, int]:
        """One set of frames, which both networks see."""
        return {"frames": self.segments}

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """(B, T, 3, S, S) frames in processing order, all of them or some."""
        flat = resized(frames.flatten(0, 1), self.glance_size, self.glance_resize)
        maps = self.glance_net(flat).unflatten(0, frames.shape[:2])
        features = maps.mean((-2, -1))
        return GlanceOutput(maps, features, aux_logits=_head(self.glance_head, features) if auxiliary else None)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None, state: Tensor | None = None) -> Plan:
        """One corner a frame; `state` is that of the plan of earlier frames, of which the frames are then some only."""
        whole = glance.maps.shape[1] == self.segments
        frames = self.order.expand(len(glance.maps), -1) if whole else None
        if overrides is not None and overrides.where is not None:
            return Plan(overrides.where, frames)
        where, state = self.policy(glance.maps.detach(), None if state is None else state[None])
        return Plan(where, frames, state=None if state is None else state[0])

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
        """(B, S, 3, S, S) frames of steps first..first+S-1, in processing order.

        Args:
            first, running_max: number of earlier steps, and `Output.running_max` after them.
            answers: how many of the last steps are asked for; None: all.
        """
        patches = crop(frames.flatten(0, 1), plan.where.flatten(0, 1), self.patch_size)
        features = self.focus_net(patches).mean((-2, -1)).unflatten(0, plan.where.shape[:2])
        joined = torch.cat([glance.features, features], -1)
        steps, running_max = self.classifier(joined, running_max, first, answers=answers)
        return Output(
            steps[:, -1],
            steps,
            plan.where,
            plan.frames,
            aux_glance=glance.aux_logits if auxiliary else None,
            aux_focus=_head(self.focus_head, features) if auxiliary else None,
            exit_logits=steps,
            running_max=running_max,
        )

    def forward(
        self,
        frames: Tensor,
        overrides: Overrides | None = None,
        auxiliary: bool = True,
        prepare: Prepare = as_they_are,
    ) -> Output:
        """See `AdaptiveNetwork.forward`. The second pass follows the first, as in the released code."""
        if frames.shape[1] != self.segments:
            raise ValueError(f"this network takes {self.segments} frames a clip, not {frames.shape[1]}")
        return super().forward(frames, overrides, auxiliary, prepare)

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """All frames, in processing order."""
        return frames[:, self.order]

    def first_frames(self, frames: Tensor) -> Tensor:
        """The first frame in processing order."""
        return frames[:, self.order[:1]]

    def exit_costs(self, parts: dict[str, int]) -> list[int]:
        """Multiply-adds of a video that leaves at each exit: every frame costs the same."""
        whole = sum(parts[name] for name in ("glance", "policy", "focus", "head", "crop"))
        return [round(whole * (step + 1) / self.segments) for step in range(self.segments)]

    def walk(self, frames: Tensor, read: Reader, chunk: int = 1) -> Walk:
        """See `EarlyExitNetwork.walk`. `frames` (B, 1, 3, S, S) are those that are looked at first."""
        rows = torch.arange(len(frames), device=frames.device)
        state = running_max = None
        for first in range(0, self.segments, chunk):
            wanted = self.order[first : first + chunk].expand(len(rows), -1)
            if first:
                frames = read(rows, wanted)
            elif chunk > 1:
                frames = torch.cat([frames, read(rows, wanted[:, 1:])], 1)
            glance = self.glance(frames)
            plan = self.decide(glance, state=state)
            output = self.focus(frames, plan, glance, first=first, running_max=running_max, answers=1)
            state, running_max = plan.state, output.running_max
            stay = yield output.logits
            if not stay.any():
                return
            if not stay.all():
                rows, running_max = rows[stay], running_max[stay]
                state = None if state is None else state[stay]


def _head(head: nn.Module, features: Tensor) -> Tensor:
    """Auxiliary logits in float32, also under autocast."""
    with full_precision(features):
        return head(widen(features))
