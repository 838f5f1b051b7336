"""Early exit: computes thresholds on one split and applies them on another, simulated or with real early stopping.

The repositories only simulate early exit: they run the whole network and determine afterwards at which step each clip
would have stopped. `thresholds` and `exit_indices` do the same; `exit_early` really stops the computation.

Source: AdaFocus V2 (arXiv 2112.14238), ops/early_exit.py of LeapLabTHU/AdaFocusV2; Uni-AdaFocus (arXiv 2412.11228),
ops/early_exit_uni_adafocus.py of LeapLabTHU/Uni-AdaFocus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adafocus.core.batch import Batch
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


@dataclass
class ExitResult:
    """Result of early exit on a batch.

    Attributes:
        logits: (B, K), the prediction of each clip at its exit.
        exits: (B,) int64, the index of each clip's exit; -1 without early exit.
        networks, reading: seconds spent in the networks and on decoding chosen frames.
    """

    logits: Tensor
    exits: Tensor
    networks: float
    reading: float


@torch.no_grad()
def exit_early(
    stage: Any, batch: Batch, limits: Tensor, numbers: Sequence[int], criterion: str, chunk: int = 1
) -> ExitResult:
    """Runs a batch with early exit; nothing more is computed or decoded for a clip that has exited.

    Args:
        stage: a stage whose model is an `EarlyExitNetwork`.
        batch: the batch, on the device.
        limits: (E',) thresholds of the exits in use.
        numbers: indices of these exits among the network's exits (see `methods.network.passed_exits`).
        criterion: exit criterion, see `certainty`.
        chunk: steps between two exits.
    """
    clock = Clock(batch)
    batch = clock.batch

    def read(rows: Tensor, candidates: Tensor) -> Tensor:
        return stage.normalize(stage.other_frames(batch, rows, candidates))

    stage.model.eval()
    limits = limits.to(batch.frames.device)
    walk = stage.model.walk(stage.normalize(stage.first_frames(batch)), read, chunk)
    logits = next(walk)
    rows = torch.arange(len(batch), device=logits.device)
    answers = torch.empty(len(batch), logits.shape[1], device=logits.device)
    exits = torch.empty(len(batch), dtype=torch.int64, device=logits.device)
    for place, number in enumerate(numbers):
        go = certainty(logits, criterion) >= limits[place]
        if place == len(numbers) - 1:
            go = torch.ones_like(go)  # a clip with NaN logits, which reaches no threshold, exits here too
        answers[rows[go]], exits[rows[go]] = logits[go].float(), number
        try:
            logits = walk.send(~go)
        except StopIteration:
            break
        rows = rows[~go]
    networks, reading = clock.stop()
    return ExitResult(answers.cpu(), exits.cpu(), networks, reading)


def run_in_full(stage: Any, batch: Batch) -> ExitResult:
    """Runs the full network on a batch without early exit and times it; `exits` is -1 for every clip."""
    clock = Clock(batch)
    logits = stage.evaluate(clock.batch, stage.variants[:1])[stage.variants[0]].logits
    networks, reading = clock.stop()
    return ExitResult(logits.float().cpu(), torch.full((len(batch),), -1), networks, reading)


class Clock:
    """Measures the seconds spent in the networks, and on decoding by `batch.source`; waits for the device each time."""

    def __init__(self, batch: Batch) -> None:
        self.device, self.reading = batch.frames.device, 0.0
        self.batch = batch if batch.source is None else replace(batch, source=partial(self._read, batch.source))
        self.started = self._now()

    def _read(self, source: Callable[..., Any], *arguments: Any) -> Any:
        before = self._now()
        found = source(*arguments)
        self.reading += self._now() - before
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def stop(self) -> tuple[float, float]:
        return self._now() - self.started - self.reading, self.reading
