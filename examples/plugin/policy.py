"""Example of a policy for AdaFocus V2 on plain backbones: the center of mass of a heat map on the glance features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WarmestPlace(nn.Module):
    """Computes a heat map by a 1x1 convolution and a softmax over positions; the patch location is its center of mass.

    Every frame is processed alone.

    Args:
        channels, map_size: channels and side of the glance network's feature map.
        segments, hidden: frames of a clip and configured width; both are ignored.
        temperature: temperature of the softmax, from `policy.options`.
    """

    def __init__(
        self, channels: int, map_size: tuple[int, int], segments: int, hidden: int, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.score, self.temperature = nn.Conv2d(channels, 1, 1), temperature
        rows, columns = (torch.linspace(0, 1, size) for size in map_size)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)

    def forward(self, maps: Tensor, state: Tensor | None = None) -> tuple[Tensor, None]:
        """Returns locations (B, n, 2) as (y, x) in [0, 1] for feature maps (B, n, channels, h, w), and None as its
        state."""
        scores = self.score(maps.flatten(0, 1)).flatten(1) / self.temperature
        return (scores.softmax(-1) @ self.places).unflatten(0, maps.shape[:2]), None
