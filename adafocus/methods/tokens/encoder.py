"""Runs a vision transformer on chosen patches only, group by group, with features after each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.backbones.features import Features
from adafocus.backbones.vit import Past, run_block
from adafocus.methods.tokens.credit import credit


@dataclass
class Encoded:
    """Output of `TokenEncoder`.

    Attributes:
        features: (B, groups, D) features of the class token after each group.
        past: keys and values of all groups so far, for each block.
        policy_loss: (B,) zeros whose gradient trains the scores (`credit`); None without scores.
    """

    features: Tensor
    past: list[Past]
    policy_loss: Tensor | None = None


class TokenEncoder(nn.Module):
    """A vision transformer over any subset of the patches of a clip's frames, in space and time.

    A token is the sum of three embeddings: of a patch, of its position in the frame (the transformer's own), and of the
    time of its frame (`time_embed`, initially zero, so that a pretrained network starts unchanged). Tokens come in
    groups, each with its own copy of the class and register tokens. The tokens of a group attend to each other and to
    all earlier groups, never to later ones, so a later group does not change the features of earlier ones and reuses
    their keys and values. One group with all patches of one frame gives the same result as the transformer itself.

    Args:
        backbone: `adafocus.backbones.vit.ViT`, or `Features` of a `VisionTransformer` of timm.
        candidates: number of frames N that patches may come from.

    Attributes:
        width: number of channels D of a token.

    Raises:
        ValueError: the network is no plain vision transformer.
    """

    def __init__(self, backbone: nn.Module, candidates: int) -> None:
        super().__init__()
        self.backbone = backbone
        check(self.vit)
        self.width: int = self.vit.embed_dim
        self.time_embed = nn.Parameter(torch.zeros(candidates, self.width))
        # A transformer without a class token averages its tokens and normalizes the mean instead of each token; it gets
        # a new class token and norm, which are trained from scratch.
        self.class_token = nn.Parameter(torch.zeros(1, 1, self.width)) if self.vit.cls_token is None else None
        self.norm = nn.LayerNorm(self.width) if isinstance(self.vit.norm, nn.Identity) else nn.Identity()

    @property
    def vit(self) -> Any:
        """The transformer itself."""
        return self.backbone.layers if isinstance(self.backbone, Features) else self.backbone

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.vit.patch_embed.proj.kernel_size[0]

    @property
    def area(self) -> int:
        """Number of patches of a frame."""
        return self.vit.pos_embed.shape[1] - self._placed

    @property
    def _placed(self) -> int:
        """Number of class and register tokens that have a position embedding."""
        if self.vit.no_embed_class:
            return 0
        return sum(token.shape[1] for token in (self.vit.cls_token, self.vit.reg_token) if token is not None)

    def embed(self, patches: Tensor) -> Tensor:
        """Embeds patches (B, n, 3, P, P) as tokens (B, n, D), without their positions."""
        proj = self.vit.patch_embed.proj
        if isinstance(self.backbone, Features):
            patches = self.backbone.normalized(patches)
        return functional.linear(patches.flatten(2), proj.weight.flatten(1), proj.bias)

    def positions(self, cells: Tensor) -> Tensor:
        """Returns position embeddings (B, n, D) of cells (B, n), which are numbered by frame, row and column."""
        return self.vit.pos_embed[0, self._placed :][cells % self.area] + self.time_embed[cells // self.area]

    def prefix(self) -> Tensor:
        """Returns the class token and the register tokens (1, R, D) that every group begins with, in this order."""
        known = (self.class_token, self.vit.cls_token, self.vit.reg_token)
        found = torch.cat([token for token in known if token is not None], 1)
        placed = functional.pad(self.vit.pos_embed[:, : self._placed], (0, 0, found.shape[1] - self._placed, 0))
        return found + placed

    def forward(
        self,
        patches: Tensor,
        cells: Tensor,
        sizes: Sequence[int],
        past: Sequence[Past] | None = None,
        scores: Tensor | None = None,
    ) -> Encoded:
        """Runs one or more groups.

        Args:
            patches: (B, n, 3, P, P) pixels of the patches.
            cells: (B, n) numbers of their cells.
            sizes: number of tokens of each group; they add up to n.
            past: `Encoded.past` of the groups before these.
            scores: (B, n) scores of the cells, if this pass is to train them.
        """
        tokens, policy_loss = self.embed(patches), None
        if scores is not None:
            tokens, policy_loss = credit(tokens, scores)
        tokens = tokens + self.positions(cells)
        prefix = self.prefix().expand(tokens.shape[0], -1, -1)
        parts = [part for group in tokens.split(list(sizes), 1) for part in (prefix, group)]
        x = self.vit.norm_pre(torch.cat(parts, 1))
        lengths = [prefix.shape[1] + size for size in sizes]
        kept: list[Past] = []
        for number, block in enumerate(self.vit.blocks):
            x, pair = run_block(block, x, lengths, past[number] if past else None)
            kept.append(pair)
        starts = list(accumulate(lengths[:-1], initial=0))
        return Encoded(self.norm(self.vit.norm(x[:, starts])), kept, policy_loss)

    def costs(self, sizes: Sequence[int]) -> list[int]:
        """Returns the multiply-adds of each group, for groups of these numbers of tokens."""
        proj, extra = self.vit.patch_embed.proj, self.prefix().shape[1]
        linear = sum(layer.weight.numel() for layer in self.vit.blocks.modules() if isinstance(layer, nn.Linear))
        channels = sum(block.attn.qkv.out_features for block in self.vit.blocks) // 3
        lengths = [size + extra for size in sizes]
        return [
            size * proj.weight.numel() + length * (linear + 2 * channels * seen)
            for size, length, seen in zip(sizes, lengths, accumulate(lengths), strict=True)
        ]


def check(vit: nn.Module) -> None:
    """Checks that a network is a plain vision transformer.

    Raises:
        ValueError: the network is not made of one linear patch embedding, learned positions and plain blocks.
    """
    needed = ("patch_embed.proj", "pos_embed", "norm_pre", "norm", "blocks")
    missing = [name for name in needed if not _has(vit, name)]
    inner = ("attn.qkv", "attn.q_norm", "attn.norm", "attn.proj", "ls1", "drop_path1", "norm1", "norm2", "mlp")
    blocks: Any = () if missing else cast(Any, vit).blocks
    missing += [name for name in inner if not all(_has(block, name) for block in blocks)]
    if missing or getattr(vit, "rope", None) is not None or any(_has(block, "attn.gate") for block in blocks):
        raise ValueError(
            f"a {type(vit).__name__} is not a plain vision transformer with learned positions; choose tiny_vit, or one "
            f"of timm such as timm/vit_tiny_patch16_224 or timm/deit_small_patch16_224"
        )
    proj = cast(Any, vit).patch_embed.proj
    if proj.kernel_size != proj.stride or proj.kernel_size[0] != proj.kernel_size[1]:
        raise ValueError(f"the patches of this {type(vit).__name__} overlap or are not square; choose another one")


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module is not None
