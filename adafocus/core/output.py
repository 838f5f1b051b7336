"""What networks return: the prediction, what the glance saw, and where and when to focus.

Letters of shapes: B clips of a batch, K classes, T steps of a prediction, G glance frames, F focus frames, N candidate
frames that focus frames are chosen from, D channels of a feature map, (h, w) its size, S the side of a square frame,
P the side of a patch. Frames are (B, frames, 3, S, S), normalized.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from torch import Tensor

Record = TypeVar("Record", bound="_Rows")


class _Rows:
    """Records whose tensors all begin with the batch."""

    def rows(self: Record, keep: Tensor) -> Record:
        """The same record for the clips in the boolean mask `keep` (B,)."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return type(self)(
            **{name: value[keep] if isinstance(value, Tensor) else value for name, value in values.items()}
        )


@dataclass
class GlanceOutput(_Rows):
    """What the glance network saw.

    Attributes:
        maps: (B, G, D, h, w), the feature maps that policies read. Where a policy makes one decision a video from all
            frames stacked on channels (AdaFocus V1 on TSM): (B, 1, G * D, h, w).
        features: (B, G, D), the maps averaged over space; after dropout where the heads drop.
        logits: (B, K), the glance network's part of a prediction that is a sum of two networks'; else None.
        aux_logits: (B, G, K), the logits that the glance network learns by, where they are asked for.
        steps: (B, G or 1, K), predictions after the glance frames alone (Uni-AdaFocus on plain backbones).
        running_max: (B, W), the maximum over the glance frames' hidden features, which later steps read (same).
    """

    maps: Tensor
    features: Tensor
    logits: Tensor | None = None
    aux_logits: Tensor | None = None
    steps: Tensor | None = None
    running_max: Tensor | None = None


@dataclass
class Plan(_Rows):
    """Where and when the focus network looks.

    Attributes:
        where: (B, T, 2) corners of patches as fractions (y, x) of the free range, or (B, T, 4) rectangles (y, x, height,
            width); (B, 1, ...) where one place serves all frames of a video.
        frames: (B, T) int64 index of the frame of each place, in the clip or among the candidates; None where the focus
            network sees a fixed set of frames.
        weights: (B, G) weights of the glance frames by the frame policy (Uni-AdaFocus).
        rectangles: (B, G or 1, 4) the spatial policy's own answer, with its gradient (Uni-AdaFocus).
        state: (B, ...) memory of a recurrent policy, from which `decide` continues with later frames (AdaFocus V2).
    """

    where: Tensor
    frames: Tensor | None = None
    weights: Tensor | None = None
    rectangles: Tensor | None = None
    state: Tensor | None = None


@dataclass
class Overrides:
    """What a caller decides in a network's place; what is None the network decides itself, as in evaluation.

    Attributes:
        where: places to look at in place of the policy's; Uni-AdaFocus: (B, N, 4) of all candidates, or (B, 1, 4) on TSM.
        diversity: places of a second pass through the focus network, which training adds (AdaFocus V2, Uni-AdaFocus).
        frames: (B, F) candidates to look at in place of the chosen ones.
        thresholds: (B, F) uniform numbers with which frames are drawn by their weights.
        offsets: (B, G) int64 position of each glance frame within its segment.
    """

    where: Tensor | None = None
    diversity: Tensor | None = None
    frames: Tensor | None = None
    thresholds: Tensor | None = None
    offsets: Tensor | None = None


@dataclass
class Output:
    """The answer to a batch.

    Attributes:
        logits: (B, K), the prediction.
        steps: (B, T, K), the prediction after each step, in processing order; None without steps.
        where, frames, weights, rectangles: see `Plan`; `where` is None for whole frames.
        aux_glance: (B, T, K) auxiliary logits of the glance features, in processing order.
        aux_focus: (B, T, K) auxiliary logits of the focus features.
        aux_spatial: (B, K) auxiliary logits that the spatial policy learns by.
        per_frame: (B, T', K) logits of single frames before their average; T' < T where the network pools over time. Of
            Uni-AdaFocus those of the glance frames that the frame policy learns by.
        exit_logits: (B, E, K) predictions with which a clip may leave early.
        focus_frames: (B, T, H, W, 3) uint8, the frames that `where` is about, if they are not those of the clip.
        running_max: (B, W) what a step-by-step classifier remembers after the last step; later steps read it.
        diversity: in training, the same clips seen at other places (a second pass).
    """

    logits: Tensor
    steps: Tensor | None = None
    where: Tensor | None = None
    frames: Tensor | None = None
    weights: Tensor | None = None
    rectangles: Tensor | None = None
    aux_glance: Tensor | None = None
    aux_focus: Tensor | None = None
    aux_spatial: Tensor | None = None
    per_frame: Tensor | None = None
    exit_logits: Tensor | None = None
    focus_frames: Tensor | None = None
    running_max: Tensor | None = None
    diversity: Output | None = None
