"""Recognition on whole frames: a backbone for every frame and the mean of the frames' logits."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.models.outputs import Output
from adafocus.precision import full_precision, widen


class Recogniser(nn.Module):
    """TSN: temporal segment network with average consensus (arXiv 1608.00859).

    Args:
        backbone: see `adafocus.backbones`.
        num_classes, segments: K, T.
        dropout: before the only head.
    """

    def __init__(self, backbone: nn.Module, *, num_classes: int, segments: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone, self.segments = backbone, segments
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)

    parts = {"focus": ("backbone",), "head": ("head",)}

    def forward(self, frames: Tensor) -> Output:
        """(B, T, 3, S, S), normalised, in temporal order."""
        features = self.backbone(frames.flatten(0, 1)).mean((-2, -1))
        with full_precision(features):
            return Output(self.head(self.dropout(widen(features))).unflatten(0, frames.shape[:2]).mean(1))
