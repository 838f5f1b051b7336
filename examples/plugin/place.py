"""What stands in the policy's place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FixedPlace(nn.Module):
    """One learned corner, whatever the glance shows.

    Args:
        start: (y, x) in (0, 1).
    """

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.corner = nn.Parameter(torch.tensor(list(start), dtype=torch.float32).logit())

    def forward(self, maps: Tensor, state: Tensor | None = None) -> tuple[Tensor, None]:
        """(B, n, D, h, w) to corners (B, n, 2), and no state."""
        return self.corner.sigmoid().expand(*maps.shape[:2], 2), None
