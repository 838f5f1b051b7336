"""What every network answers: one named result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Output:
    """The answer to a batch of B clips with K classes; T is the number of steps.

    Attributes:
        logits: (B, K), the prediction.
        steps: (B, T, K), the prediction after each step, in processing order; None without steps.
        where: (B, T, 2) corners of the patches as fractions (y, x) of the free range, or (B, T, 4) rectangles (y, x, height,
            width), in processing order; (B, 1, ...) where one place is for all frames; None for whole frames.
        frames: (B, T) int64, the temporal index of the frame that each step saw: in the clip, or among the candidates.
        glance: (B, T, K) auxiliary logits of the glance features, in processing order.
        focus: (B, T, K) auxiliary logits of the focus features.
        per_frame: (B, T', K) logits of single frames before their average; T' < T where the network pools over time. Of
            Uni-AdaFocus those of the glance frames that the frame policy learns by.
        exits: (B, E, K) predictions with which a clip may leave early.
        weights: (B, G) of the glance frames, by the frame policy.
        rectangles: (B, G or 1, 4), the spatial policy's answer with its gradient.
        spatial: (B, K) auxiliary logits that the spatial policy learns by.
        looked: (B, T, H, W, 3) uint8, the frames that `where` is about, if they are not those of the clip.
        diversity: in training, the same clips seen at other patches (a second pass).
    """

    logits: Tensor
    steps: Tensor | None = None
    where: Tensor | None = None
    frames: Tensor | None = None
    glance: Tensor | None = None
    focus: Tensor | None = None
    per_frame: Tensor | None = None
    exits: Tensor | None = None
    weights: Tensor | None = None
    rectangles: Tensor | None = None
    spatial: Tensor | None = None
    looked: Tensor | None = None
    diversity: Output | None = None
