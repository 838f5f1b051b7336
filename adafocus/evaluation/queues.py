"""Early exit that keeps batches full: clips that do not exit wait in queues until enough of them need the same step.

A batch of which half the clips have exited takes far more than half of its time, on a GPU nearly all of it. So clips
that stay are gathered from several batches of the loader, and every step runs on a full one. The CPU waits for the
device once a step, for the decision who exits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from adafocus.core.batch import Batch, only
from adafocus.evaluation.exits import certainty

#: Number of batches of `exit_window`.
WINDOW = 8


@dataclass
class ExitedClips:
    """Clips that have exited together.

    Attributes:
        index: (n,) int64 indices of their videos.
        number: the exit, an index among the network's exits.
        logits: (n, K), on the device.
        where, looked: patch locations and their frames, as in the state of `EarlyExitNetwork.step`; None without.
    """

    index: Tensor
    number: int
    logits: Tensor
    where: Tensor | None
    looked: Tensor | None


@dataclass
class ExitResult:
    """Result of early exit for N clips, in the order of their batches.

    Attributes:
        logits: (N, K) the predictions with which the clips exited.
        exits: (N,) int64 the index of each clip's exit; -1 without early exit.
        networks, reading: seconds spent in the networks and on decoding chosen frames.
    """

    logits: Tensor
    exits: Tensor
    networks: float
    reading: float


@dataclass
class _Group:
    """Clips before the same step: where their frames are, by batch, and the state of the network."""

    sources: list[tuple[Batch, Tensor]]  # (batch, rows in it)
    state: dict[str, Tensor]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.sources)

    @property
    def index(self) -> Tensor:
        """The indices of the videos."""
        return torch.cat([batch.index[rows] for batch, rows in self.sources])

    def select(self, keep: Tensor) -> _Group:
        """Selects the clips `keep` (n,), ascending indices on the CPU."""
        if len(keep) == len(self):
            return self
        sources, start = [], 0
        for batch, rows in self.sources:
            mine = rows[keep[(keep >= start) & (keep < start + len(rows))] - start]
            start += len(rows)
            if len(mine) and 2 * len(mine) <= len(batch):  # so that no clip that is gone occupies memory for long
                batch, mine = only(batch, mine), torch.arange(len(mine))
            sources += [(batch, mine)] if len(mine) else []
        state = {}
        if self.state:
            on_device = keep.to(next(iter(self.state.values())).device, non_blocking=True)
            state = {name: value.index_select(0, on_device) for name, value in self.state.items()}
        return _Group(sources, state)

    def read(self, stage: Any, candidates: Tensor, rows: Tensor | None = None) -> Tensor:
        """Reads frames as `methods.network.Reader` says."""
        wanted = torch.arange(len(self)) if rows is None else rows.cpu()
        found, start, done = [], 0, 0
        for batch, of in self.sources:
            mine = of[wanted[(wanted >= start) & (wanted < start + len(of))] - start]
            start += len(of)
            if len(mine):
                found.append(stage.other_frames(batch, mine, candidates[done : done + len(mine)]))
                done += len(mine)
        return stage.normalize(found[0] if len(found) == 1 else torch.cat(found))

    def first(self, stage: Any) -> dict[str, Tensor]:
        """Returns the state before the first step."""
        found = []
        for batch, rows in self.sources:
            frames = stage.first_frames(batch)
            found.append(frames if len(rows) == len(batch) else frames[rows.to(frames.device, non_blocking=True)])
        return {"frames": stage.normalize(found[0] if len(found) == 1 else torch.cat(found))}


def _joined(groups: Sequence[_Group]) -> _Group:
    if len(groups) == 1:
        return groups[0]
    names = groups[0].state
    state = {name: torch.cat([group.state[name] for group in groups]) for name in names}
    return _Group([source for group in groups for source in group.sources], state)


class _Queue:
    """Groups of clips that wait for the same step."""

    def __init__(self) -> None:
        self.groups: deque[_Group] = deque()
        self.clips = 0

    def put(self, group: _Group) -> None:
        self.groups.append(group)
        self.clips += len(group)

    def take(self, size: int) -> _Group:
        """Removes the first `size` clips, or all, and returns them."""
        parts = [self.groups.popleft()]
        while self.groups and sum(map(len, parts)) < size:
            parts.append(self.groups.popleft())
        group = _joined(parts)
        if len(group) > size:
            everyone = torch.arange(len(group))
            self.groups.appendleft(group.select(everyone[size:]))
            group = group.select(everyone[:size])
        self.clips -= len(group)
        return group


@torch.no_grad()
def exit_stream(
    stage: Any,
    batches: Iterable[Batch],
    limits: Tensor,
    numbers: Sequence[int],
    criterion: str,
    chunk: int = 1,
    size: int = 1,
) -> Iterator[ExitedClips]:
    """Runs clips with early exit; nothing is computed or decoded for clips that have exited.

    Args:
        stage: a stage whose model is an `EarlyExitNetwork`.
        batches: the clips, on the device.
        limits: (E',) thresholds of the exits in use, on the device.
        numbers: indices of these exits among the network's exits (see `methods.network.passed_exits`).
        criterion: exit criterion, see `adafocus.evaluation.exits.certainty`.
        chunk: steps between two exits.
        size: number of clips a step, as long as there are so many.
    """
    model = stage.model.eval()
    stream, queues = iter(batches), [_Queue() for _ in numbers]
    while True:
        # The last full queue first, so that few clips wait; at the end the first one, so that the others fill up.
        place = next((place for place in reversed(range(len(queues))) if queues[place].clips >= size), None)
        if place is None:
            if (batch := next(stream, None)) is not None:
                queues[0].put(_Group([(batch, torch.arange(len(batch)))], {}))
                continue
            place = next((place for place, queue in enumerate(queues) if queue.clips), None)
        if place is None:
            return
        group = queues[place].take(size)
        state = group.state if place else group.first(stage)
        logits, after = model.step(place, state, partial(group.read, stage), chunk)
        everyone = torch.arange(len(group))
        if place == len(numbers) - 1:  # a clip with NaN logits, which reaches no threshold, exits here too
            left, stay = everyone, everyone[:0]
        else:
            go = (certainty(logits, criterion) >= limits[place]).cpu()  # the only wait of a step
            left, stay = everyone[go], everyone[~go]
        if len(left):
            yield _gone(group, left, numbers[place], logits, after)
        if len(stay):
            queues[place + 1].put(_Group(group.sources, after).select(stay))


def exit_window(
    stage: Any, batches: Iterator[Batch], *arguments: Any, device: torch.device, **options: Any
) -> tuple[list[Batch], dict[int, tuple[ExitedClips, int]]]:
    """Runs the next `WINDOW` batches of the loader with early exit, so that predictions come in between.

    Args:
        stage, arguments, options: see `exit_stream`.
        batches: the iterator of the loader.
        device: the device to copy clips to.

    Returns:
        the batches without their frames, none at the end; and by index of each readable video its result and its row
        there.
    """
    seen: list[Batch] = []

    def readable() -> Iterator[Batch]:
        for batch in islice(batches, WINDOW):
            seen.append(replace(batch, frames=batch.frames[:0], kept={}))
            if batch.valid.any():
                yield only(batch, batch.valid).to(device)

    found: dict[int, tuple[ExitedClips, int]] = {}
    for gone in exit_stream(stage, readable(), *arguments, **options):
        found |= {index: (gone, row) for row, index in enumerate(gone.index.tolist())}
    return seen, found


def _gone(group: _Group, left: Tensor, number: int, logits: Tensor, after: dict[str, Tensor]) -> ExitedClips:
    rows = left.to(logits.device, non_blocking=True)
    where, looked = (after[name].index_select(0, rows) if name in after else None for name in ("where", "looked"))
    return ExitedClips(group.index[left], number, logits.index_select(0, rows), where, looked)


def exit_early(
    stage: Any,
    batches: Iterable[Batch],
    limits: Tensor,
    numbers: Sequence[int],
    criterion: str,
    chunk: int = 1,
    size: int = 1,
) -> ExitResult:
    """Runs clips with early exit, see `exit_stream`, and measures the time."""
    clock = Clock(batches)
    gone = list(exit_stream(stage, clock, limits.to(clock.device), numbers, criterion, chunk, size))
    networks, reading = clock.stop()
    if not gone:
        return ExitResult(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), networks, reading)
    logits = torch.cat([part.logits for part in gone]).float().cpu()
    exits = torch.cat([torch.full((len(part.index),), part.number) for part in gone])
    order = {video: row for row, video in enumerate(torch.cat([part.index for part in gone]).tolist())}
    rows = torch.tensor([order[video] for video in clock.index])
    return ExitResult(logits[rows], exits[rows], networks, reading)


def run_in_full(stage: Any, batches: Iterable[Batch]) -> ExitResult:
    """Runs the full network without early exit, see `exit_early`; `exits` is -1 for every clip."""
    main = stage.variants[:1]
    return without_exits(batches, lambda batch: stage.evaluate(batch, main)[main[0]].logits)


def without_exits(batches: Iterable[Batch], work: Callable[[Batch], Tensor]) -> ExitResult:
    """Computes predictions (B, ...) for every batch, see `exit_early`; `exits` is -1 for every clip."""
    clock = Clock(batches)
    found = [work(batch).float() for batch in clock]
    networks, reading = clock.stop()
    logits = torch.cat(found).cpu() if found else torch.zeros(0, 1)
    return ExitResult(logits, torch.full((len(logits),), -1), networks, reading)


class Clock:
    """Passes batches on and measures the seconds between them that are spent in networks and on decoding.

    Attributes:
        index: indices of the videos so far, in their order.
        device: device of the first batch.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = iter(batches)
        self.ahead = next(self.batches, None)
        self.device = torch.device("cpu") if self.ahead is None else self.ahead.frames.device
        self.index: list[int] = []
        self.reading = self.waiting = 0.0
        self.started = self._now()

    def __iter__(self) -> Iterator[Batch]:
        while self.ahead is not None:
            self.index += self.ahead.index.tolist()
            source = self.ahead.source
            yield self.ahead if source is None else replace(self.ahead, source=partial(self._read, source))
            before = self._now()
            self.ahead = next(self.batches, None)
            self.waiting += self._now() - before

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
        return self._now() - self.started - self.reading - self.waiting, self.reading
