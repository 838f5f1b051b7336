"""The gradient by which cell scores learn: from how much each chosen token contributes to the true class."""

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
    """Returns the tokens unchanged, and a zero for each clip whose gradient trains the scores.

    In the backward pass the gain of a token is its first-order contribution to a smaller loss L, -<dL/dtoken, token>.
    The gains of a clip's tokens, negative ones set to 0, are normalized to sum to 1. The gradient of the zero is that
    of the cross entropy between these shares and the softmax of the scores. So a score learns the logarithm of its
    token's share; shares do not vanish as the loss does, and no second backward pass is needed. Position embeddings
    must be added to the tokens later, because they would contribute to the gains.

    LITE's selector (arXiv 2411.13626) has a similar target from gradients, but is trained after the network; here both
    learn in one pass, on the chosen tokens.

    Args:
        tokens: (B, n, D) chosen tokens.
        scores: (B, n) their scores, with gradient.

    Returns:
        the tokens (B, n, D), and zeros (B,) to add to the loss of each clip with a weight.
    """
    return _Credit.apply(tokens, scores)
