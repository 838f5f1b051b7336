"""`Backbone`, the type of all backbones."""

from __future__ import annotations

from torch import nn


class Backbone(nn.Module):
    """A network from images (N, 3, H, W) to feature maps (N, width, h, w), without a classification head.

    Attributes:
        width: number of channels of the maps.
    """

    width: int

    def map_size(self, size: int) -> tuple[int, int]:
        """Returns height and width (h, w) of the maps for square images of `size` pixels."""
        raise NotImplementedError
