"""A small vision transformer (arXiv 2010.11929) of plain torch, and attention in groups of tokens.

Modules and parameters have the names that they have in timm's `VisionTransformer`, so that
`adafocus.methods.tokens.encoder` runs either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.backbones.base import Backbone

#: Keys and values (B, heads, n, D / heads) in one block, of all tokens processed so far.
Past = tuple[Tensor, Tensor]


def attend(attn: nn.Module, x: Tensor, lengths: Sequence[int], past: Past | None = None) -> tuple[Tensor, Past]:
    """Computes multi-head self-attention in which a group of tokens attends to itself and to all earlier groups.

    Args:
        attn: the layers, an `Attention` of this module or of timm.
        x: (B, n, D) tokens of one or more groups.
        lengths: number of tokens of each of these groups; they add up to n.
        past: keys and values of earlier groups.

    Returns:
        the output (B, n, D), and the keys and values of all groups so far.
    """
    layers: Any = attn
    q, k, v = layers.qkv(x).unflatten(-1, (3, layers.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = layers.q_norm(q), layers.k_norm(k)
    before = 0
    if past is not None:
        before = past[0].shape[2]
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    found, start = [], 0
    for length in lengths:
        end = start + length
        seen = before + end
        found.append(functional.scaled_dot_product_attention(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen]))
        start = end
    mixed = torch.cat(found, 2).transpose(1, 2).flatten(2)
    return layers.proj(layers.norm(mixed)), (k, v)


def run_block(block: nn.Module, x: Tensor, lengths: Sequence[int], past: Past | None = None) -> tuple[Tensor, Past]:
    """Applies a transformer block to tokens in groups; arguments and results are those of `attend`."""
    layers: Any = block
    attended, kept = attend(layers.attn, layers.norm1(x), lengths, past)
    x = x + layers.drop_path1(layers.ls1(attended))
    return x + layers.drop_path2(layers.ls2(layers.mlp(layers.norm2(x)))), kept


class Attention(nn.Module):
    """The layers of multi-head self-attention; the function `attend` computes it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm, self.norm = nn.Identity(), nn.Identity(), nn.Identity()
        self.proj = nn.Linear(width, width)


class Block(nn.Module):
    """The layers of a transformer block with normalization before attention and MLP; `run_block` computes it."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.ls1, self.ls2, self.drop_path1, self.drop_path2 = (nn.Identity() for _ in range(4))


class PatchEmbedding(nn.Module):
    """The linear map of a patch of pixels to a token, stored as a convolution."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)


class ViT(Backbone):
    """A vision transformer without a classifier; as a backbone, it returns the tokens of the last block as a map.

    Args:
        size: side of the square images in pixels.
        patch_size: side of the patch of pixels of a token; it divides `size`.
        width: number of channels D of a token.
        depth: number of blocks.
        num_heads: number of attention heads; it divides `width`.
        mlp_ratio: hidden width of the MLPs as a multiple of `width`.

    Raises:
        ValueError: the patches do not fill the image, or the heads the width.
    """

    def __init__(
        self,
        size: int,
        *,
        patch_size: int = 16,
        width: int = 64,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: int = 2,
    ) -> None:
        super().__init__()
        if size % patch_size or width % num_heads:
            raise ValueError(
                f"patches of {patch_size} pixels must fill images of {size}, and {num_heads} heads a width of {width}"
            )
        self.width = self.embed_dim = width
        self.no_embed_class = False
        self.patch_embed = PatchEmbedding(width, patch_size)
        self.cls_token, self.reg_token = nn.Parameter(torch.zeros(1, 1, width)), None
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch_size) ** 2, width))
        self.norm_pre = nn.Identity()
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=width**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Computes feature maps (N, D, h, w) of images (N, 3, H, W)."""
        maps = self.patch_embed.proj(images)
        tokens = torch.cat([self.cls_token.expand(maps.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], 1)
        x = tokens + self.pos_embed
        for block in self.blocks:
            x, _ = run_block(block, x, [x.shape[1]])
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, maps.shape[-2:])

    def map_size(self, size: int) -> tuple[int, int]:
        """Returns height and width (h, w) of the map for square images of `size` pixels."""
        side = size // self.patch_embed.proj.kernel_size[0]
        return side, side
