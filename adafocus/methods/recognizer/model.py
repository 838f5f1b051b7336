"""Recognition on whole frames: a backbone for every frame and the mean of the frames' logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.backbones.adaptive import TemporalAdaptive
from adafocus.backbones.non_local import NonLocal
from adafocus.backbones.shift import Shifted, TemporalPool
from adafocus.core.cost import Part
from adafocus.core.output import Output
from adafocus.layers.heads import change_features
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.network import Network
from adafocus.methods.options import CONSENSUSES
from adafocus.methods.programs import Call, Program


class Recognizer(Network):
    """Temporal segment network (TSN) with average consensus; with temporal modules in the backbone TSM, NL-TSM or TAM.

    Source: arXiv 1608.00859; mit-han-lab/temporal-shift-module, class `TSN` in ops/models.py.

    Args:
        backbone: a backbone as `adafocus.backbones` describes, with its temporal modules.
        num_classes, segments: number of classes K and of frames T.
        dropout: dropout probability before the head, independent for each frame.
        remove_background: subtract from every pixel its mean over the clip. With a static camera this removes the
            scene, which helps in scenes that the training set does not show.
        causal: with `remove_background`, subtract the mean of the frames up to the present one, which
            `OnlineRecognizer` can compute in a stream.
        consensus: how frames are joined: "average" (the mean of their logits) or "change" (logits of
            `layers.heads.change_features`, with dropout on these).
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
        consensus: str = "average",
    ) -> None:
        super().__init__()
        self.backbone, self.segments = backbone, segments
        self.remove_background, self.causal = remove_background, causal
        if consensus not in CONSENSUSES:
            raise ValueError(f"consensus must be one of {CONSENSUSES}")
        self.change = consensus == "change"
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear((3 if self.change else 1) * backbone.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)

    parts = (
        Part("focus", ("backbone",)),
        Part("head", ("head",)),
    )

    def forward(self, frames: Tensor) -> Output:
        """Predicts from normalized frames (B, T, C, S, S) in temporal order; C is 3, or 10 for optical flow."""
        if self.remove_background:
            frames = frames - (running_mean(frames) if self.causal else frames.mean(1, keepdim=True))
        if self.change:
            features = self.backbone(frames.flatten(0, 1)).mean((-2, -1)).unflatten(0, (frames.shape[0], -1))
            with full_precision(features):
                return Output(self.head(self.dropout(change_features(features))))
        logits = self.frame_logits(frames.flatten(0, 1)).unflatten(0, (frames.shape[0], -1))
        return Output(logits.mean(1), per_frame=logits)

    def frame_logits(self, images: Tensor) -> Tensor:
        """Computes logits (B * T', K) of frames (B * T, C, S, S); T' < T if the backbone pools over time."""
        features = self.backbone(images).mean((-2, -1))
        with full_precision(features):
            return self.head(self.dropout(widen(features)))

    def programs(self) -> list[Program]:
        """See `Network.programs`: there is one, frames -> logits."""
        frames = {"frames": self.segments}
        return [Program("focus", Call(self, lambda net, x: net(x).logits), ("frames",), ("logits",), frames)]

    def why_no_stream(self) -> str | None:
        """See `Network.why_no_stream`."""
        ahead = {TemporalAdaptive: "adaptive", NonLocal: "non_local", TemporalPool: "temporal_pool"}
        for module in self.modules():
            if type(module) in ahead:
                return (
                    f"this model cannot run frame by frame: backbone.{ahead[type(module)]} looks at "
                    f"frames that have not come "
                    f"yet; train with backbone.{ahead[type(module)]}=false and backbone.shift=online"
                )
        if self.change:
            return (
                "this model cannot run frame by frame: method.consensus=change compares all frames of a clip; "
                "train with method.consensus=average"
            )
        shifts = [module for module in self.modules() if isinstance(module, Shifted)]
        if not shifts or not all(shift.online for shift in shifts):
            what = "its shift takes channels from the frame after" if shifts else "nothing in it joins frames"
            return f"this model cannot run frame by frame: {what}; train with backbone.shift=online"
        if self.remove_background and not self.causal:
            return (
                "this model cannot run frame by frame: its background is the mean of the whole clip; "
                "build the Recognizer with causal=True and train that"
            )
        return None


def running_mean(frames: Tensor) -> Tensor:
    """Replaces each frame by the mean of the clip's frames up to and including it; (B, T, C, H, W) in and out.

    The mean is updated frame by frame exactly as `OnlineRecognizer` does, so that both give the same bits.
    """
    mean = torch.zeros_like(frames[:, 0])
    means = []
    for count, frame in enumerate(frames.unbind(1), 1):
        mean = mean + (frame - mean) / count
        means.append(mean)
    return torch.stack(means, 1)
