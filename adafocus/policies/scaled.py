"""The policy of Uni-AdaFocus that says where: one rectangle of free size and aspect a frame, or one a video."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen

#: The released program runs the policy twice on every training batch, so its running statistics move twice with 0.1; once
#: with this is the same: 1 - (1 - 0.1)^2.
TWICE = 0.19


class ScaledPolicy(nn.Module):
    """The glance maps of a clip to rectangles (y, x, height, width), each in (0, 1).

    1x1x1 convolution, two 3x3x3 convolutions over time and place, each with BatchNorm and ReLU, a last convolution over the
    whole map, and a sigmoid; no biases. It runs in float32 under autocast.

    Args:
        channels: D of the glance map.
        map_size: (h, w) of the glance map.
        segments: G, glance frames. None: one rectangle a frame, for any number of frames; else one for all of them.
        hidden: channels inside (128 in all published models).

    Source: Uni-AdaFocus (arXiv 2412.11228); the released `spatial_policy`, spec uni_adafocus 2.4 and uni_adafocus_tsm 2.5.
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
        """(B, G, D, h, w) maps in temporal order to (B, G, 4), or (B, 1, 4) where one rectangle is for all frames."""
        with full_precision(maps):
            where = self.encoder(widen(maps).transpose(1, 2))[..., 0, 0].transpose(1, 2)
            return where.clone()  # torch.compile cannot return this view together with its detached copy


def over_time(where: Tensor, frames: int) -> Tensor:
    """Rectangles of G glance frames, (B, G, 4), to those of all N candidates, (B, N, 4), linearly in time.

    A glance frame is taken to be in the center of its segment, where training may have drawn it anywhere in it, as in the
    released code.
    """
    return functional.interpolate(where.transpose(1, 2), frames, mode="linear").transpose(1, 2)
