"""The spatial policy of Uni-AdaFocus: a rectangle of variable size and aspect ratio, one per frame or one per video."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen

#: BatchNorm momentum of layers that `AdaFocus.forward` in models/uni_adafocus.py of the repository runs twice per
#: training
#: batch. One update with 1 - (1 - 0.1)^2 = 0.19 equals its two updates of the running statistics with 0.1.
TWICE = 0.19


class ScaledPolicy(nn.Module):
    """The spatial policy: rectangles (y, x, height, width), each number in (0, 1), from the glance maps of a clip.

    A 1x1x1 convolution and two 3x3x3 convolutions over time, height and width, each with BatchNorm and ReLU; a
    convolution over the whole map; a sigmoid. No biases. It runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance map.
        map_size: height and width (h, w) of the glance map.
        segments: None: one rectangle per frame, for any number of frames; else the number of glance frames G, for which
            there is a single rectangle.
        hidden: number of channels between the convolutions (128 in all published models).

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, `SpatialPolicy` in models/uni_adafocus.py.
    """

    def __init__(
        self, channels: int, map_size: tuple[int, int], segments: int | None = None, hidden: int = 128
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, kernel in ((channels, 1), (hidden, 3), (hidden, 3)):
            convolution = nn.Conv3d(before, hidden, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm3d(hidden, momentum=TWICE), nn.ReLU(inplace=True)]
        last = nn.Conv3d(hidden, 4, (segments or 1, *map_size), bias=False)
        self.encoder = nn.Sequential(*layers, last, nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """Computes rectangles (B, G, 4), or (B, 1, 4) if one applies to all frames, from maps (B, G, D, h, w)."""
        with full_precision(maps):
            where = self.encoder(widen(maps).transpose(1, 2))[..., 0, 0].transpose(1, 2)
            return where.clone()  # torch.compile cannot return this view together with its detached copy


def over_time(where: Tensor, frames: int) -> Tensor:
    """Interpolates the rectangles of G glance frames, (B, G, 4), linearly over time to all N candidates, (B, N, 4).

    Every glance frame counts as the center of its segment, although training takes a random frame of the segment; this
    is as in `AdaFocus.forward` of the repository.
    """
    return functional.interpolate(where.transpose(1, 2), frames, mode="linear").transpose(1, 2)
