"""Small convolutional networks that learn from scratch in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class TinyNet(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, once for each entry of `channels`; the listed strides, 2 by default.

    Args:
        channels: output channels of each layer.
        strides: of each layer.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int] | None = None) -> None:
        super().__init__()
        strides = strides or [2] * len(channels)
        if not channels or len(strides) != len(channels):
            raise ValueError(f"channels {list(channels)} and strides {list(strides)} must be lists of the same length")
        layers: list[nn.Module] = []
        for before, after, stride in zip([3, *channels], channels, strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.strides = list(strides)
        self.width = channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to the last layer's map (N, width, h, w)."""
        return self.layers(images)

    def map_size(self, size: int) -> tuple[int, int]:
        """Sides of the map for square images of `size`."""
        for stride in self.strides:
            size = (size - 1) // stride + 1
        return size, size


def tiny_glance(channels: Sequence[int] = (16, 32)) -> TinyNet:
    """For reduced frames: the map keeps a quarter of their side, so that it still tells places apart."""
    return TinyNet(channels)


def tiny_focus(channels: Sequence[int] = (32, 64, 128)) -> TinyNet:
    """For patches at full resolution."""
    return TinyNet(channels)
