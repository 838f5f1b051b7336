"""Non-local blocks: self-attention over all positions of all frames of a clip.

Source: arXiv 1711.07971 (embedded Gaussian); mit-han-lab/temporal-shift-module, ops/non_local.py.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class NonLocal(nn.Module):
    """Computes x + BN(W(softmax(theta(x)^T phi(x)) g(x))), with phi and g max-pooled 2x2, softmax without a scale.

    The 1x1x1 convolutions act on single frames, so the input is not rearranged; only the smaller maps of theta, phi and
    g are. The block is the identity at initialization, because BN's scale and shift are 0.

    Args:
        channels: number of channels C; theta, phi and g have C // 2.
        segments: number of frames T of a clip.
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        inner = channels // 2
        self.segments = segments
        # Sequential modules and 5-D weights, so that state dict keys and shapes are those of ops/non_local.py.
        self.g = nn.ModuleList([nn.Conv3d(channels, inner, 1)])
        self.phi = nn.ModuleList([nn.Conv3d(channels, inner, 1)])
        self.theta = nn.Conv3d(channels, inner, 1)
        norm = nn.BatchNorm3d(channels)
        self.W = nn.ModuleList([nn.Conv3d(inner, channels, 1), norm])
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block to feature maps (B * T, C, H, W); the shape stays."""
        queries = self._places(_frame_wise(self.theta, x)).unsqueeze(1)  # one head: fused kernels take 4 dimensions
        keys, values = (
            self._places(functional.max_pool2d(_frame_wise(conv, x), 2)).unsqueeze(1)
            for conv in (self.phi[0], self.g[0])
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values, scale=1.0).squeeze(1)
        maps = seen.unflatten(1, (self.segments, *x.shape[-2:])).movedim(-1, 2).flatten(0, 1)
        return x + self.W[1](_frame_wise(self.W[0], maps).unsqueeze(2)).squeeze(2)

    def _places(self, maps: Tensor) -> Tensor:
        """Rearranges maps (B * T, C, h, w) to the positions of each clip, (B, T * h * w, C)."""
        return maps.unflatten(0, (-1, self.segments)).movedim(2, -1).flatten(1, 3)


def _frame_wise(conv: nn.Module, x: Tensor) -> Tensor:
    return functional.conv2d(x, conv.get_parameter("weight").squeeze(2), conv.get_parameter("bias"))


class NonLocalAfter(nn.Module):
    """Applies another block and then a non-local block to its output."""

    def __init__(self, block: nn.Module, channels: int, segments: int) -> None:
        super().__init__()
        self.block, self.nl = block, NonLocal(channels, segments)

    def forward(self, x: Tensor) -> Tensor:
        return self.nl(self.block(x))
