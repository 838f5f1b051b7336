"""Classifiers that join what glance and focus saw."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.precision import full_precision, widen


class PooledStepClassifier(nn.Module):
    """A prediction after every step, from the running maximum of what the steps so far saw.

    Per step: linear to `width`, BatchNorm, ReLU; the elementwise maximum over steps 0..k; step k's own linear layer. The
    released code loops over T small layers; here one cumulative maximum and one batched product do the same.

    Args:
        channels: of the joined features.
        num_classes, segments: K, T.
        width: of the hidden layer (4096 in the released code, whatever its option says).
        dropout: on the maximum, drawn anew for each step.

    Source: FrameExit (arXiv 2104.13400) and AdaFocus V2; spec adafocus_v2 section 2.2.
    """

    def __init__(self, channels: int, num_classes: int, segments: int, width: int = 4096, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, width)
        self.norm = nn.BatchNorm1d(width)
        self.weight = nn.Parameter(torch.empty(segments, num_classes, width))
        self.bias = nn.Parameter(torch.empty(segments, num_classes))
        self.dropout = dropout
        bound = 1 / math.sqrt(width)  # nn.Linear's own initialisation, for each step
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, features: Tensor, seen: Tensor | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """(B, S, channels) features of steps first..first+S-1, and the maximum (B, width) of earlier steps.

        Returns:
            logits (B, S, K) of these steps, and the maximum after the last of them.
        """
        with full_precision(features):
            hidden = functional.relu(self.norm(self.hidden(widen(features).flatten(0, 1)))).unflatten(
                0, features.shape[:2]
            )
            pooled = hidden.cummax(1).values
            if seen is not None:
                pooled = torch.maximum(pooled, seen[:, None])
            steps = slice(first, first + features.shape[1])
            dropped = functional.dropout(pooled, self.dropout, self.training)
            logits = torch.einsum("bsw,skw->bsk", dropped, self.weight[steps]) + self.bias[steps]
            return logits, pooled[:, -1]
