"""Small convolutional networks that can be trained from scratch on a CPU in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones.base import Backbone


class TinyNet(Backbone):
    """A small network with a 3x3 convolution, BatchNorm and ReLU for each entry of `channels`.

    Args:
        channels: number of output channels of each layer.
        strides: stride of each layer; None: 2 in every layer.
        coordinates: whether to add two input channels with each pixel's y and x from -1 to 1 (arXiv 1807.03247).
            Spatially
            pooled features then depend on where an object is; TAM, which reads pooled features, needs that to see
            motion.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int] | None = None, *, coordinates: bool = False
    ) -> None:
        super().__init__()
        strides = strides or [2] * len(channels)
        if not channels or len(strides) != len(channels):
            raise ValueError(f"channels {list(channels)} and strides {list(strides)} must be lists of the same length")
        layers: list[nn.Module] = []
        for before, after, stride in zip([5 if coordinates else 3, *channels], channels, strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.strides, self.coordinates = list(strides), coordinates
        self.width = channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Computes the last layer's feature maps (N, width, h, w) of images (N, 3, H, W)."""
        if self.coordinates:
            rows, columns = (
                torch.linspace(-1, 1, n, device=images.device, dtype=images.dtype) for n in images.shape[-2:]
            )
            place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
            images = torch.cat((images, place.expand(images.shape[0], -1, -1, -1)), 1)
        return self.layers(images)

    def map_size(self, size: int) -> tuple[int, int]:
        """Returns height and width of the feature maps for square images of `size` pixels."""
        for stride in self.strides:
            size = (size - 1) // stride + 1
        return size, size


def tiny_glance(channels: Sequence[int] = (16, 32), **options: Any) -> TinyNet:
    """Makes a glance network for small frames; its map has a quarter of their side, to keep locations."""
    return TinyNet(channels, **options)


def tiny_focus(channels: Sequence[int] = (32, 64, 128), **options: Any) -> TinyNet:
    """Makes a focus network for patches, or for whole frames in a recognizer."""
    return TinyNet(channels, **options)
