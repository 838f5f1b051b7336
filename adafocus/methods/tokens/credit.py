"""How the scores of cells learn: from each chosen token's share in the evidence for the true class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Credit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens, scores)
        return tokens.view_as(tokens), scores.new_zeros(len(scores))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        tokens, scores = ctx.saved_tensors
        gradient, weight = gradients
        gain = (-gradient * tokens).sum(-1, dtype=torch.float32).clamp(min=0)
        share = gain / gain.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        pull = weight[:, None] * (scores.float().softmax(1) - share)
        return gradient, pull.to(scores.dtype)


def credit(tokens: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the tokens unchanged and a zero for each clip, whose gradient trains the scores.

    When the loss goes backward, the gain of a token is known to first order: how much the loss of its clip falls per
    unit by which the token grows, -<dL/dtoken, token>. The gradient of the zero is that of the cross-entropy between
    the gains' distribution over the clip's tokens (negative gains count as none) and the softmax of their scores. So
    the scores learn the logarithm of each token's share in the evidence; shares do not vanish as the loss does, and no
    second backward pass is needed. The tokens must not have their positions yet, or a position could earn credit.

    The value of a token from gradients is also the target of LITE's selector (arXiv 2411.13626), which is trained after
    the network; here both learn in one pass, on the tokens that were chosen.

    Args:
        tokens: (B, K, D).
        scores: (B, K) their scores, with gradient.

    Returns:
        (B, K, D), and (B,) zeros to add to the loss of each clip with a weight.
    """
    return _Credit.apply(tokens, scores)
