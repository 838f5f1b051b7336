"""torchvision's MobileNetV2 without the classification head; the keys of its state dict are torchvision's."""

from __future__ import annotations

from torch import Tensor

from adafocus.backbones.base import Backbone


class MobileNetV2(Backbone):
    """torchvision's MobileNetV2 of width 1.0 up to the last 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import (
            mobilenet_v2 as build,
        )  # imported here, because it is slow and tiny networks do not need it

        net = build()
        self.layers = net.features
        self.width = net.last_channel

    def forward(self, images: Tensor) -> Tensor:
        """Computes feature maps (N, 1280, ceil(H / 32), ceil(W / 32)) of images (N, 3, H, W)."""
        return self.layers(images)

    def map_size(self, size: int) -> tuple[int, int]:
        return -(-size // 32), -(-size // 32)


def mobilenet_v2() -> MobileNetV2:
    return MobileNetV2()
