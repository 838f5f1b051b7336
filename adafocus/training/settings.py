"""The options of the training loop, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Settings:
    """Options of the training loop.

    Attributes:
        epochs, steps_per_epoch: length of training.
        rates: learning rate of each optimizer step.
        parts: number of accumulation steps (batches) per optimizer step.
        optimizer: sgd or adamw.
        clip: maximal L2 norm of the gradient; None: not clipped.
        precision: fp32, bf16 or fp16.
        metric: the score that selects the best checkpoint.
        evaluate_every, evaluate_last: with values n and m, evaluate after the epochs 1, 1 + n, ... and the last m.
        save_seconds: seconds between two checkpoints within an epoch.
        log_every: steps between two lines of metrics.jsonl.
        bad_limit: maximal number of unreadable training videos.
        layer_decay: layer-wise decay of the learning rate, see `optimizer.layer_rates`; 1: none.
        ema_decay: decay of the moving average of the weights, which is then evaluated and saved; None: no average.
        mixup_alpha, cutmix_alpha: see `mixing.mix`; 0: clips are not mixed.
        patience: epochs without a better score after which training ends; None: it does not end early.
    """

    epochs: int
    steps_per_epoch: int
    rates: np.ndarray
    seed: int
    parts: int = 1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float | None = None
    precision: str = "fp32"
    metric: str = "top1"
    evaluate_every: int = 1
    evaluate_last: int = 1
    save_seconds: float = 300.0
    log_every: int = 10
    bad_limit: int = 0
    layer_decay: float = 1.0
    ema_decay: float | None = None
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    patience: int | None = None


@dataclass
class Progress:
    """The state of training that a checkpoint stores besides weights and optimizer."""

    step: int = 0
    evaluated: int = -1  # the last epoch that was evaluated
    last: float = -1.0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)
