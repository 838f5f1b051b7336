"""Early exit: computes thresholds on one split and applies them on another, simulated or with real early stopping.

The repositories only simulate early exit: they run the whole network and determine afterwards at which step each clip
would have stopped. `thresholds` and `leaving` do exactly the same; `adafocus.evaluation.queues` really stops.

Source: AdaFocus V2 (arXiv 2112.14238), ops/early_exit.py of LeapLabTHU/AdaFocusV2; Uni-AdaFocus (arXiv 2412.11228),
ops/early_exit_uni_adafocus.py of LeapLabTHU/Uni-AdaFocus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adafocus.core.choices import CRITERIA

NEVER, ALWAYS = 1e8, -1e8  # thresholds at which no clip or every clip exits; the repositories' values


def certainty(logits: Tensor, criterion: str = "confidence") -> Tensor:
    """Returns the exit criterion (...) of logits (..., K); a clip exits once it reaches the exit's threshold.

    Args:
        logits: (..., K) the predictions.
        criterion: "confidence": the largest logit, as in the repositories (the papers speak of the probability).
            "entropy": the negative entropy, sum of p log p. The repositories compute log(softmax), which is NaN if a
            probability underflows; otherwise the values agree.
    """
    if criterion == "confidence":
        return logits.amax(-1)
    if criterion == "entropy":
        logs = logits.log_softmax(-1)
        return (logs.exp() * logs).sum(-1)
    raise ValueError(f"unknown criterion {criterion!r}; choose one of {', '.join(CRITERIA)}")


def wanted_shares(budgets: Sequence[float], exits: int, first: int = 0) -> Tensor:
    """Returns the shares (Q, E) float32 of clips that should stop at each exit for Q budgets, q ** (first + exit).

    They are normalized twice, as in the repositories, because rounding affects how many clips a threshold lets exit.
    """
    q = torch.tensor(budgets, dtype=torch.float32)[:, None]
    weights = torch.exp(torch.arange(first, first + exits, dtype=torch.float32) * q.log())
    weights = weights / weights.sum(1, keepdim=True)
    return weights / weights.sum(1, keepdim=True)


def thresholds(sure: Tensor, shares: Tensor) -> Tensor:
    """Computes thresholds (E,) for one budget: of the clips still running, those with the highest criterion exit.

    At exit k these are floor(N * shares[k]) clips (with the float32 product, as in the repositories); at the last exit,
    all.

    Args:
        sure: (N, E) exit criterion of N clips at every exit.
        shares: (E,) float32 shares of clips that should exit.
    """
    count, exits = sure.shape
    here = torch.ones(count, dtype=torch.bool)
    found = torch.full((exits,), NEVER, dtype=sure.dtype)
    for number in range(exits - 1):
        wanted = min(int((shares[number] * count).floor()), int(here.sum()))
        if wanted > 0:
            left = torch.where(here)[0]
            order = sure[left, number].argsort(descending=True, stable=True)[:wanted]
            found[number] = sure[left[order[-1]], number]
            here[left[order]] = False
    found[-1] = ALWAYS
    return found


def exit_indices(sure: Tensor, limits: Tensor) -> Tensor:
    """Returns the exit (N,) int64 of each clip, the first at which its criterion (N, E) reaches the threshold (E,)."""
    enough = sure >= limits
    enough[:, -1] = True
    return enough.int().argmax(1)
