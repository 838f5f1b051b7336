"""AdaFocus V2 on plain backbones: glance at every frame, focus on one patch of each, predict after every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.core.output import Output
from adafocus.layers.crop import SquarePatches, crop
from adafocus.layers.heads import PooledStepClassifier
from adafocus.layers.precision import full_precision, widen
from adafocus.layers.resize import GLANCE_RESIZES, resized
from adafocus.methods.walks import Reader, Walk
from adafocus.policies.affine import AffinePolicy

ORDERS = ("coarse_to_fine", "temporal")


def coarse_to_fine(segments: int) -> list[int]:
    """The order in which frames are looked at: middle, first, last, then the middles between them, ever finer.

    Source: FrameExit (arXiv 2104.13400). The released rule gives too long a list below three frames; there the order is
    that of time.
    """
    if segments < 3:
        return list(range(segments))
    order = [(segments - 1) // 2, 0, segments - 1]
    parts = 2
    while len(order) < segments:
        borders = [part * (segments - 1) // parts for part in range(parts + 1)]
        for left, right in zip(borders, borders[1:], strict=False):
            middle = (left + right) // 2
            if middle not in order:
                order.append(middle)
        parts *= 2
    return order


class AdaFocusV2(SquarePatches, nn.Module):
    """The untrimmed-video network of AdaFocus V2.

    Args:
        glance, focus: backbones (see `adafocus.backbones`).
        num_classes: K.
        segments: T.
        patch_size: P, in pixels.
        frame_size: side of the square frames.
        glance_size: side of the frames that the glance sees; None: frame_size.
        glance_resize: "aligned": bilinear with aligned corners, no antialiasing (the released code); "area": the mean
            over what a pixel covers.
        policy_hidden, classifier_width, dropout, head_dropout: of policy, classifier and auxiliary heads.
        order: "coarse_to_fine" or "temporal". The order is applied here and nowhere else; every output is in it.

    Source: AdaFocus V2, arXiv 2112.14238; spec adafocus_v2 sections 2.2 and 2.3.
    """

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
    ) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        if glance_resize not in GLANCE_RESIZES or order not in ORDERS:
            raise ValueError(f"glance_resize must be one of {GLANCE_RESIZES} and order one of {ORDERS}")
        self.glance, self.focus = glance, focus
        self.segments, self.patch_size, self.frame_size = segments, patch_size, frame_size
        self.glance_size = glance_size or frame_size
        self.glance_resize = glance_resize
        self.policy = AffinePolicy(glance.width, glance.map_size(self.glance_size), policy_hidden)
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(focus.width, num_classes))
        self.classifier = PooledStepClassifier(
            glance.width + focus.width, num_classes, segments, classifier_width, dropout
        )
        steps = coarse_to_fine(segments) if order == "coarse_to_fine" else list(range(segments))
        self.register_buffer("order", torch.tensor(steps), persistent=False)

    #: Submodules by what they are for, for the count of multiply-adds.
    parts = {
        "glance": ("glance",),
        "policy": ("policy",),
        "focus": ("focus",),
        "head": ("classifier",),
        "auxiliary glance": ("glance_head",),
        "auxiliary focus": ("focus_head",),
    }

    budgets, budget_start = tuple(number / 10 for number in range(5, 40)), 1
    glance_first = False

    @property
    def places(self) -> int:
        """Places that are looked at in a video."""
        return self.segments

    @property
    def crop_values(self) -> int:
        """Values that are blended to cut the patches of a video."""
        return self.segments * 3 * self.patch_size**2

    def forward(
        self, frames: Tensor, where: Tensor | None = None, diversity: Tensor | None = None, auxiliary: bool = True
    ) -> Output:
        """
        Args:
            frames: (B, T, 3, S, S), normalized, in temporal order.
            where: (B, T, 2) corners to look at, in processing order; None asks the policy.
            diversity: (B, T, 2) corners of a second pass through focus network and classifier. It follows the first, with
                batch statistics of its own, as in the released code.
            auxiliary: whether the auxiliary logits are wanted.
        """
        if frames.shape[1] != self.segments:
            raise ValueError(f"this network takes {self.segments} frames a clip, not {frames.shape[1]}")
        batch = len(frames)
        frames = frames[:, self.order]
        maps = self.glance_maps(frames)
        seen = maps.mean((-2, -1))
        if where is None:
            where, _ = self.policy(maps.detach())
        glance = _head(self.glance_head, seen) if auxiliary else None
        output = self._look(frames, seen, where, glance)
        output.frames = self.order.expand(batch, -1)
        if diversity is not None:
            output.diversity = self._look(frames, seen, diversity, glance)
        return output

    def glance_maps(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) to the glance network's maps (B, T, D, h, w)."""
        flat = resized(frames.flatten(0, 1), self.glance_size, self.glance_resize)
        return self.glance(flat).unflatten(0, frames.shape[:2])

    def focus_features(self, frames: Tensor, where: Tensor) -> Tensor:
        """(B, T, 3, S, S) frames at (B, T, 2) corners to focus features (B, T, D)."""
        patches = crop(frames.flatten(0, 1), where.flatten(0, 1), self.patch_size)
        return self.focus(patches).mean((-2, -1)).unflatten(0, where.shape[:2])

    def _look(self, frames: Tensor, seen: Tensor, where: Tensor, glance: Tensor | None) -> Output:
        focused = self.focus_features(frames, where)
        steps, _ = self.classifier(torch.cat([seen, focused], -1))
        focus = None if glance is None else _head(self.focus_head, focused)
        return Output(steps[:, -1], steps, where, glance=glance, focus=focus, exits=steps)

    @property
    def exits(self) -> int:
        """After each frame."""
        return self.segments

    def exit_costs(self, parts: dict[str, int]) -> list[int]:
        """Multiply-adds of a video that leaves at each exit: every frame costs the same."""
        whole = sum(parts[name] for name in ("glance", "policy", "focus", "head", "crop"))
        return [round(whole * (step + 1) / self.segments) for step in range(self.segments)]

    def walk(self, frames: Tensor, read: Reader, chunk: int = 1) -> Walk:
        """See `adafocus.methods.walks`. `frames` (B, 1, 3, S, S) are those that are looked at first."""
        rows = torch.arange(len(frames), device=frames.device)
        order, state, seen = self.order, None, None
        for first in range(0, self.segments, chunk):
            wanted = order[first : first + chunk].expand(len(rows), -1)
            if first:
                frames = read(rows, wanted)
            elif chunk > 1:
                frames = torch.cat([frames, read(rows, wanted[:, 1:])], 1)
            maps = self.glance_maps(frames)
            where, state = self.policy(maps, state)
            joined = torch.cat([maps.mean((-2, -1)), self.focus_features(frames, where)], -1)
            logits, seen = self.classifier(joined, seen, first, answers=1)
            stay = yield logits[:, -1]
            if not stay.any():
                return
            if not stay.all():
                rows, state, seen = rows[stay], state[:, stay], seen[stay]


def _head(head: nn.Module, features: Tensor) -> Tensor:
    """Auxiliary logits in float32, also under autocast."""
    with full_precision(features):
        return head(widen(features))
