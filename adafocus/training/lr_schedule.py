"""Learning-rate schedules as an array with one entry per optimizer step, so that resuming needs no scheduler state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adafocus.core.choices import LR_SCALINGS, LR_SCHEDULES


def learning_rates(
    *,
    rate: float,
    epochs: int,
    steps_per_epoch: int,
    shape: str = "cosine",
    per_epoch: bool = False,
    horizon: int | None = None,
    milestones: Sequence[int] = (),
    decay: float = 0.1,
    warmup_epochs: float = 0.0,
) -> np.ndarray:
    """Computes the learning rate of every optimizer step, float64 of length epochs * steps_per_epoch.

    Args:
        rate: peak learning rate.
        epochs, steps_per_epoch: length of training.
        shape: "cosine": rate / 2 * (1 + cos(pi * e / horizon)) after e epochs; "step": multiplied by `decay` at each
            milestone; "constant".
        per_epoch: whether e is the number of finished epochs, as in the AdaFocus and TSM code; else it includes
            fractions.
        horizon: epochs until the cosine reaches 0; None: `epochs`. AdaFocus' code trains one more epoch, at rate 0.
        milestones: epochs at which "step" multiplies the rate.
        decay: factor of "step".
        warmup_epochs: during these epochs the rate is also multiplied by a factor that rises linearly from 0 to 1.
    """
    if shape not in LR_SCHEDULES:
        raise ValueError(f"shape={shape!r} is unknown; choose one of {', '.join(LR_SCHEDULES)}")
    rates: np.ndarray
    exact = np.arange(epochs * steps_per_epoch) / steps_per_epoch
    epoch = np.floor(exact + 1e-9) if per_epoch else exact
    if shape == "cosine":
        rates = rate / 2 * (1 + np.cos(np.pi * np.minimum(epoch / (horizon or epochs), 1.0)))
    elif shape == "step":
        rates = rate * decay ** np.searchsorted(np.asarray(sorted(milestones), float), epoch, side="right")
    else:
        rates = np.full_like(exact, rate)
    if warmup_epochs > 0:
        rates *= np.minimum((np.arange(len(exact)) + 1) / (warmup_epochs * steps_per_epoch), 1.0)
    return rates


def scaled_rate(rate: float, batch: int, base_batch: int, scaling: str = "linear") -> float:
    """Scales the learning rate for `base_batch` clips to batches of `batch` clips (arXiv 1706.02677)."""
    if scaling not in LR_SCALINGS:
        raise ValueError(f"scaling={scaling!r} is unknown; choose one of {', '.join(LR_SCALINGS)}")
    return rate * batch / base_batch if scaling == "linear" else rate
