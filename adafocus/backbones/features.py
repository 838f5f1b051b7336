"""Any module that makes a map of images, as a backbone."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """A module (N, 3, H, W) -> (N, width, h, w) with the attributes of a backbone, measured on the meta device.

    Args:
        module: without a classification head, for example `torchvision.models.efficientnet_b0().features`.

    Raises:
        ValueError: its output is no such map.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.layers = module
        self.width = self._shape(224)[1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, width, h, w)."""
        return self.layers(images)

    def map_size(self, size: int) -> tuple[int, int]:
        """Sides of the map for square images of `size`."""
        return self._shape(size)[2:]

    def _shape(self, size: int) -> tuple[int, int, int, int]:
        measured = deepcopy(self.layers).to("meta").eval()
        with torch.no_grad():
            found = measured(torch.empty(1, 3, size, size, device="meta"))
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[0] != 1:
            kind = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"a backbone makes a map (N, C, h, w) of (N, 3, H, W); {type(self.layers).__name__} gives {kind}"
            )
        return tuple(found.shape)


def features_of(module: nn.Module) -> Features:
    """A backbone of a module that makes a map (N, C, h, w) of images (N, 3, H, W); see `Features`.

    adafocus.register_backbone("efficientnet_b0", lambda: features_of(torchvision.models.efficientnet_b0().features))
    """
    return Features(module)


def check_backbone(name: str, backbone: nn.Module) -> nn.Module:
    """The backbone of a plug-in, if it says what one must say.

    Raises:
        ValueError: it does not.
    """
    missing = [what for what in ("width", "map_size") if not hasattr(backbone, what)]
    if not isinstance(backbone, nn.Module) or missing:
        raise ValueError(
            f"backbone {name!r} is a {type(backbone).__name__} without {' and '.join(missing) or 'forward'}; "
            f"adafocus.backbones.features_of makes a backbone of a module"
        )
    return backbone
