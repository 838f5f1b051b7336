"""Classification heads that combine the features of several frames, or of the glance and the focus network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen


def change_features(features: Tensor) -> Tensor:
    """Combines features (..., T, D) of T frames to (..., 3 D) that depend on the order of the frames.

    They are the mean over the frames, the mean absolute difference of successive frames, and the mean of the second
    half of the frames minus that of the first half; for a single frame, both differences are zeros. The mean alone, as
    in TSN, does not depend on the order. Runs in float32 under autocast.
    """
    with full_precision(features):
        features = widen(features)
        frames = features.shape[-2]
        if frames == 1:
            zeros = torch.zeros_like(features[..., 0, :])
            return torch.cat([features[..., 0, :], zeros, zeros], -1)
        first, second = features[..., : frames // 2, :], features[..., frames - frames // 2 :, :]
        moved = (features[..., 1:, :] - features[..., :-1, :]).abs()
        return torch.cat([features.mean(-2), moved.mean(-2), second.mean(-2) - first.mean(-2)], -1)


class PooledStepClassifier(nn.Module):
    """Predicts after every step, from the running maximum of the hidden features of all steps so far.

    Each step's features pass a linear layer to `width`, BatchNorm and ReLU. Step k applies its own linear layer to the
    elementwise maximum over steps 0..k. The repository loops over T linear layers; here one cumulative maximum and one
    batched product compute the same.

    Args:
        channels: number of input features per step.
        num_classes, segments: number of classes K and of steps T.
        width: width of the hidden layer (4096 in the repository, whatever its option says).
        dropout: dropout probability on the maximum, independent for each step.
        beside: width of an additional input that is concatenated to the maximum; 0: none.
        momentum: momentum of BatchNorm.

    Source: FrameExit (arXiv 2104.13400) and AdaFocus V2; LeapLabTHU/AdaFocusV2, `PoolingClassifier` in
    models/adafocus_v2.py.
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
        bound = 1 / math.sqrt(width + beside)  # each step is initialized as an nn.Linear
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
        """Predicts after some steps of a clip.

        Args:
            features: (B, S, channels) features of S steps.
            seen: (B, width) running maximum after the earlier steps; None if there are none.
            first: number of steps of the clip before these.
            beside: (B, beside) additional input, concatenated after the maximum.
            answers: number of steps, counted from the last, to compute logits for; None: all S.

        Returns:
            logits (B, answers, K) of these steps, and the running maximum (B, width) after the last step.
        """
        steps = features.shape[1]
        with full_precision(features):
            hidden = functional.relu(self.norm(self.hidden(widen(features).flatten(0, 1)))).unflatten(0, (-1, steps))
            if answers is not None and answers < steps:  # steps without a prediction: only their maximum is needed
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
        """Returns the multiply-adds (MACs) of `steps` steps of a clip, `answers` of them with a prediction."""
        return steps * self.hidden.weight.numel() + answers * self.weight[0].numel()


class TwoHeads(nn.Module):
    """Two linear heads on the pooled features of each frame; their logits are averaged over frames.

    `predict` makes the prediction; it reads detached features, so no gradient flows from it into the network. The loss
    of `learn` alone trains the network. In the repository these are `new_fc` and `new_new_fc` of `TSN` in ops/models.py
    (LeapLabTHU/AdaFocusV2, Something-Something).
    """

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.predict, self.learn = nn.Linear(width, num_classes), nn.Linear(width, num_classes)
        for head in (self.predict, self.learn):
            nn.init.normal_(head.weight, std=0.001)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor, learn: bool = True) -> tuple[Tensor, Tensor | None]:
        """Computes the mean logits (B, K) of the head `predict`, and of the head `learn` if requested (else None).

        Args:
            features: (B, T, D) pooled features of the frames.
            learn: whether to compute the logits of the head `learn`, which only training needs.
        """
        predicted, learned, _ = self.per_frame(features, learn)
        return predicted.mean(1), None if learned is None else learned.mean(1)

    def per_frame(self, features: Tensor, learn: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
        """Computes the per-frame logits (B, T, K) of both heads of features (B, T, D), and these after dropout."""
        with full_precision(features):
            dropped = self.dropout(widen(features))
            return self.predict(dropped.detach()), self.learn(dropped) if learn else None, dropped
