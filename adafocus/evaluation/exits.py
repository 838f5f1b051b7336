"""Early exit: thresholds from one split, and what leaving by them does on another, simulated or for real.

The released programs only simulate: they run the whole network and choose afterwards which of its answers would have been
the last. `thresholds` and `leaving` do that, exactly as they do; `leave` really stops.

Source: AdaFocus V2 (arXiv 2112.14238) and Uni-AdaFocus (arXiv 2412.11228), released early-exit programs; spec adafocus_v2
section 7, uni_adafocus section 7, uni_adafocus_tsm section 7.
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

NEVER, ALWAYS = 1e8, -1e8  # thresholds of the released programs


def certainty(logits: Tensor, criterion: str = "confidence") -> Tensor:
    """How sure an answer is: (..., K) to (...); the larger, the earlier a clip leaves.

    Args:
        criterion: "confidence": the largest raw logit (not probability, whatever the papers write). "entropy": sum of
            p log p. The released code takes the logarithm of the softmax, which is NaN where a probability underflows;
            elsewhere it is the same.
    """
    if criterion == "confidence":
        return logits.amax(-1)
    if criterion == "entropy":
        logs = logits.log_softmax(-1)
        return (logs.exp() * logs).sum(-1)
    raise ValueError(f"unknown criterion {criterion!r}; choose one of {', '.join(CRITERIA)}")


def wanted_shares(budgets: Sequence[float], exits: int, first: int = 0) -> Tensor:
    """(Q, E) float32: of clips that should leave at each exit, in proportion to q ** (first + exit) for budgets q.

    Normalized twice, as in the released programs, because thresholds count whole clips of these very numbers.
    """
    q = torch.tensor(budgets, dtype=torch.float32)[:, None]
    weights = torch.exp(torch.arange(first, first + exits, dtype=torch.float32) * q.log())
    weights = weights / weights.sum(1, keepdim=True)
    return weights / weights.sum(1, keepdim=True)


def thresholds(sure: Tensor, shares: Tensor) -> Tensor:
    """(E,) of one budget: at each exit the surest of those that are still there leave, as many as their share.

    Args:
        sure: (N, E) certainty of the clips that thresholds are found on.
        shares: (E,) float32.

    floor(N share) is taken of the float32 product, as in the released programs. The last exit takes everybody.
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


def leaving(sure: Tensor, limits: Tensor) -> Tensor:
    """(N,) int64: the first exit at which each clip is sure enough; sure (N, E), limits (E,)."""
    enough = sure >= limits
    enough[:, -1] = True
    return enough.int().argmax(1)


@dataclass
class Left:
    """How the clips of a batch left.

    Attributes:
        logits: (B, K) their answers.
        exits: (B,) int64 where they left.
        networks, reading: seconds spent in networks and on reading what was chosen.
    """

    logits: Tensor
    exits: Tensor
    networks: float
    reading: float


@torch.no_grad()
def leave(stage: Any, batch: Batch, limits: Tensor, numbers: Sequence[int], criterion: str, chunk: int = 1) -> Left:
    """Runs a batch until every clip has left; nothing is computed or read for those that have.

    Args:
        stage: with `model.walk`, `first_frames`, `other_frames` and `normalize`.
        batch: on the device.
        limits: (E',) thresholds of the exits that the walk passes.
        numbers: which of the network's exits these are (see `methods.network.passed_exits`).
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
            go = torch.ones_like(go)  # also of a clip whose answer is NaN
        answers[rows[go]], exits[rows[go]] = logits[go].float(), number
        try:
            logits = walk.send(~go)
        except StopIteration:
            break
        rows = rows[~go]
    networks, reading = clock.stop()
    return Left(answers.cpu(), exits.cpu(), networks, reading)


def whole(stage: Any, batch: Batch) -> Left:
    """The same for the network as a whole, which nobody leaves early; exits are not told."""
    clock = Clock(batch)
    logits = stage.evaluate(clock.batch, stage.variants[:1])[stage.variants[0]].logits
    networks, reading = clock.stop()
    return Left(logits.float().cpu(), torch.full((len(batch),), -1), networks, reading)


class Clock:
    """Seconds in networks, and on reading through `batch.source`; waits for the device before it looks at the time."""

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
