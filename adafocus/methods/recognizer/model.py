"""Recognition on whole frames: a backbone for every frame and the mean of the frames' logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.core.output import Output
from adafocus.layers.precision import full_precision, widen


class Recognizer(nn.Module):
    """Temporal segment network with average consensus: TSN (arXiv 1608.00859), and with temporal modules in the backbone
    (`backbones.temporal`) TSM, NL-TSM and TANet.

    Args:
        backbone: see `adafocus.backbones`.
        num_classes, segments: K, T.
        dropout: before the only head, drawn for each frame.
        remove_background: the network sees how each pixel differs from its mean over the clip. With a camera that stands
            still, scenes that were never seen look like those that were.
        causal: the mean is that of the frames so far, this one among them. A stream can compute it frame by frame
            (`OnlineRecognizer`); the mean over the clip needs frames that have not come yet.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        num_classes: int,
        segments: int,
        dropout: float = 0.5,
        remove_background: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.segments = backbone, segments
        self.remove_background, self.causal = remove_background, causal
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)

    parts = {"focus": ("backbone",), "head": ("head",)}

    def forward(self, frames: Tensor) -> Output:
        """(B, T, C, S, S), normalized, in temporal order; C = 3, or 10 for optical flow."""
        if self.remove_background:
            frames = frames - (running_mean(frames) if self.causal else frames.mean(1, keepdim=True))
        logits = self.frame_logits(frames.flatten(0, 1)).unflatten(0, (frames.shape[0], -1))
        return Output(logits.mean(1), per_frame=logits)

    def frame_logits(self, images: Tensor) -> Tensor:
        """(B * T, C, S, S) to (B * T', K); T' < T where the backbone pools over time."""
        features = self.backbone(images).mean((-2, -1))
        with full_precision(features):
            return self.head(self.dropout(widen(features)))


def running_mean(frames: Tensor) -> Tensor:
    """(B, T, C, H, W): at each frame the mean of the frames from the first of the clip up to this one.

    One frame after the other, with the arithmetic of a stream, so that both give the same bits.
    """
    mean = torch.zeros_like(frames[:, 0])
    means = []
    for count, frame in enumerate(frames.unbind(1), 1):
        mean = mean + (frame - mean) / count
        means.append(mean)
    return torch.stack(means, 1)
