"""Non-local blocks: every place of a clip attends to every other.

Source: arXiv 1711.07971 (embedded Gaussian); spec tsm section 2.7.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class NonLocal(nn.Module):
    """x + BN(W(softmax(theta(x)^T phi(x)) g(x))), with phi and g pooled 2x2 (floor) and without a scale.

    All 1x1x1 convolutions act on single frames, so frames stay where they are; only the smaller maps of theta, phi and g
    are rearranged. It starts as the identity: BN's scale and shift are 0.

    Args:
        channels: C; C // 2 inside.
        segments: T.
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        inner = channels // 2
        self.segments = segments
        # Lists, and 5-D weights, for the released key names.
        self.g = nn.ModuleList([nn.Conv3d(channels, inner, 1)])
        self.phi = nn.ModuleList([nn.Conv3d(channels, inner, 1)])
        self.theta = nn.Conv3d(channels, inner, 1)
        self.W = nn.ModuleList([nn.Conv3d(inner, channels, 1), nn.BatchNorm3d(channels)])
        nn.init.zeros_(self.W[1].weight)
        nn.init.zeros_(self.W[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) to the same shape."""
        queries = self._places(_frame_wise(self.theta, x))
        keys, values = (
            self._places(functional.max_pool2d(_frame_wise(conv, x), 2)) for conv in (self.phi[0], self.g[0])
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        maps = seen.unflatten(1, (self.segments, *x.shape[-2:])).movedim(-1, 2).flatten(0, 1)
        return x + self.W[1](_frame_wise(self.W[0], maps).unsqueeze(2)).squeeze(2)

    def _places(self, maps: Tensor) -> Tensor:
        """(B * T, C, h, w) to (B, T * h * w, C)."""
        return maps.unflatten(0, (-1, self.segments)).movedim(2, -1).flatten(1, 3)


def _frame_wise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    return functional.conv2d(x, conv.weight.squeeze(2), conv.bias)


class NonLocalAfter(nn.Module):
    """A block, then non-local attention on its output."""

    def __init__(self, block: nn.Module, channels: int, segments: int) -> None:
        super().__init__()
        self.block, self.nl = block, NonLocal(channels, segments)

    def forward(self, x: Tensor) -> Tensor:
        return self.nl(self.block(x))
