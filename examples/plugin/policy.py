"""A policy of AdaFocus V2 on plain backbones: the center of what a 1x1 convolution finds on the glance map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WarmestPlace(nn.Module):
    """A softmax over the places of the map, and the mean place by it. It has no memory: every frame is looked at alone.

    Args:
        channels, map_size: of the glance map.
        segments, hidden: frames of a clip and configured width, which it does not need.
        temperature: of the softmax; from `policy.options`.
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
        """(B, n, channels, h, w) to corners (B, n, 2) in [0, 1] as (y, x), and no state."""
        scores = self.score(maps.flatten(0, 1)).flatten(1) / self.temperature
        return (scores.softmax(-1) @ self.places).unflatten(0, maps.shape[:2]), None
