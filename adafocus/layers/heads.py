"""Classifiers that join what glance and focus saw."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen


class PooledStepClassifier(nn.Module):
    """A prediction after every step, from the running maximum of what the steps so far saw.

    Per step: linear to `width`, BatchNorm, ReLU; the elementwise maximum over steps 0..k; step k's own linear layer. The
    released code loops over T small layers; here one cumulative maximum and one batched product do the same.

    Args:
        channels: of the joined features.
        num_classes, segments: K, T.
        width: of the hidden layer (4096 in the released code, whatever its option says).
        dropout: on the maximum, drawn anew for each step.
        beside: width of what each step's layer reads beside the maximum.
        momentum: of BatchNorm.

    Source: FrameExit (arXiv 2104.13400) and AdaFocus V2; spec adafocus_v2 section 2.2.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        segments: int,
        width: int = 4096,
        dropout: float = 0.0,
        *,
        beside: int = 0,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, width)
        self.norm = nn.BatchNorm1d(width, momentum=momentum)
        self.weight = nn.Parameter(torch.empty(segments, num_classes, width + beside))
        self.bias = nn.Parameter(torch.empty(segments, num_classes))
        self.dropout = dropout
        bound = 1 / math.sqrt(width + beside)  # nn.Linear's own initialization, for each step
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self,
        features: Tensor,
        seen: Tensor | None = None,
        first: int = 0,
        *,
        beside: Tensor | None = None,
        answers: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, S, channels) features of steps first..first+S-1, and the maximum (B, width) of earlier steps.

        Args:
            beside: (B, W) what the steps' layers read beside the maximum, after it.
            answers: how many of the last steps are asked for; None: all S.

        Returns:
            logits (B, answers, K) of these steps, and the maximum after the last of them.
        """
        steps = features.shape[1]
        with full_precision(features):
            hidden = functional.relu(self.norm(self.hidden(widen(features).flatten(0, 1)))).unflatten(0, (-1, steps))
            if answers is not None and answers < steps:  # nobody asks after the first ones: their maximum is enough
                skipped = steps - answers + 1
                hidden = torch.cat([hidden[:, :skipped].amax(1, keepdim=True), hidden[:, skipped:]], 1)
            pooled = hidden if hidden.shape[1] == 1 else hidden.cummax(1).values
            if seen is not None:
                pooled = torch.maximum(pooled, seen[:, None])
            read = (
                pooled if beside is None else torch.cat([pooled, beside[:, None].expand(-1, pooled.shape[1], -1)], -1)
            )
            asked = slice(first + steps - read.shape[1], first + steps)
            dropped = functional.dropout(read, self.dropout, self.training)
            logits = torch.einsum("bsw,skw->bsk", dropped, self.weight[asked]) + self.bias[asked]
            return logits, pooled[:, -1]

    def cost(self, steps: int, answers: int) -> int:
        """Multiply-adds of `steps` steps after which `answers` are asked for."""
        return steps * self.hidden.weight.numel() + answers * self.weight[0].numel()


class TwoHeads(nn.Module):
    """Two linear heads on the pooled features of each frame, averaged over frames.

    `predict` reads detached features: it makes the prediction and sends no gradient into its network. `learn` does; the
    network learns from it alone.
    """

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.predict, self.learn = nn.Linear(width, num_classes), nn.Linear(width, num_classes)
        for head in (self.predict, self.learn):
            nn.init.normal_(head.weight, std=0.001)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor, learn: bool = True) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) to logits (B, K) of `predict` and, if asked for, of `learn`."""
        predicted, learned, _ = self.per_frame(features, learn)
        return predicted.mean(1), None if learned is None else learned.mean(1)

    def per_frame(self, features: Tensor, learn: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
        """(B, T, D) to logits (B, T, K) of both heads, and the features after dropout."""
        with full_precision(features):
            dropped = self.dropout(widen(features))
            return self.predict(dropped.detach()), self.learn(dropped) if learn else None, dropped
