"""Recognition on whole frames: a backbone for every frame and the mean of the frames' logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Part
from adafocus.core.output import Output
from adafocus.layers.precision import full_precision, widen


class Recognizer(nn.Module):
    """Temporal segment network with average consensus.

    It is TSN (arXiv 1608.00859); with temporal modules in the backbone (`backbones.temporal`) it is TSM, NL-TSM or
    TANet. The corresponding class is `TSN` in ops/models.py of mit-han-lab/temporal-shift-module.

    Args:
        backbone: see `adafocus.backbones`.
        num_classes, segments: number of classes K and of frames T.
        dropout: dropout probability before the head, independent for each frame.
        remove_background: subtract from every pixel its mean over the clip. With a static camera this removes the
            scene, which helps in scenes that the training set does not show.
        causal: with `remove_background`, subtract the mean of the frames up to the present one, which
            `OnlineRecognizer` can compute in a stream.
    """

    def __init__(
        self,
        backbone: Backbone,
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

    parts = (
        Part("focus", ("backbone",)),
        Part("head", ("head",)),
    )

    def forward(self, frames: Tensor) -> Output:
        """Prediction for normalized frames (B, T, C, S, S) in temporal order; C is 3, or 10 for optical flow."""
        if self.remove_background:
            frames = frames - (running_mean(frames) if self.causal else frames.mean(1, keepdim=True))
        logits = self.frame_logits(frames.flatten(0, 1)).unflatten(0, (frames.shape[0], -1))
        return Output(logits.mean(1), per_frame=logits)

    def frame_logits(self, images: Tensor) -> Tensor:
        """Logits (B * T', K) of frames (B * T, C, S, S); T' < T if the backbone pools over time."""
        features = self.backbone(images).mean((-2, -1))
        with full_precision(features):
            return self.head(self.dropout(widen(features)))


def running_mean(frames: Tensor) -> Tensor:
    """At each frame, the mean of the clip's frames up to and including it; (B, T, C, H, W) in and out.

    The mean is updated frame by frame exactly as `OnlineRecognizer` does, so that both give the same bits.
    """
    mean = torch.zeros_like(frames[:, 0])
    means = []
    for count, frame in enumerate(frames.unbind(1), 1):
        mean = mean + (frame - mean) / count
        means.append(mean)
    return torch.stack(means, 1)
