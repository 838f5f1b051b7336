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
        where: (B, T, 2) corners of the patches as fractions (y, x) of the free range, in processing order; None for whole frames.
        frames: (B, T) int64, the temporal index of the frame that each step saw.
        glance: (B, T, K) auxiliary logits of the glance features, in processing order.
        focus: (B, T, K) auxiliary logits of the focus features.
        per_frame: (B, T', K) logits of single frames before their average; T' < T where the network pools over time.
        diversity: in training, the same clips seen at other patches (a second pass).
    """

    logits: Tensor
    steps: Tensor | None = None
    where: Tensor | None = None
    frames: Tensor | None = None
    glance: Tensor | None = None
    focus: Tensor | None = None
    per_frame: Tensor | None = None
    diversity: Output | None = None
