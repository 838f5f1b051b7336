"""Clips to batches, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

import ctypes
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Iterator

from torch.utils.data import DataLoader, get_worker_info

from adafocus.core.batch import Batch
from adafocus.core.errors import UserError
from adafocus.core.rng import generator
from adafocus.data.chosen import ChosenFrames
from adafocus.data.dataset import EVALUATION, ClipSource, Item, collate
from adafocus.data.video import VideoError

Key = tuple[int, int]


class TrainOrder:
    """Batches of (epoch, index) for one process: a batch sampler that can start anywhere.

    All processes walk the same permutation of the data. One optimizer step takes the next `batch` clips of it; process
    r of w takes the r-th of w equal parts, and the parts of its accumulation steps one after the other. So the clips of
    a step do not depend on how many processes and accumulation steps share it. The last incomplete step is dropped.

    Args:
        size: clips in the data set.
        batch: clips of one optimizer step, over all processes and accumulation steps.
        parts: accumulation steps of one optimizer step.
        rank, world: this process and their number.
        seed: of the run.
    """

    def __init__(self, size: int, batch: int, *, parts: int = 1, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        if batch % (world * parts):
            raise ValueError(f"a batch of {batch} cannot be shared by {world} processes in {parts} parts")
        if size < batch:
            raise ValueError(f"a batch of {batch} is larger than the training set of {size} clips")
        self.size, self.batch, self.parts = size, batch, parts
        self.rank, self.world, self.seed = rank, world, seed
        self.steps = size // batch
        self.epoch, self.first_step = 0, 0

    def start_at(self, epoch: int, first_step: int) -> None:
        """The next iteration yields `epoch` from its step `first_step` on."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[Key]]:
        order = generator(self.seed, "order", self.epoch).permutation(self.size)
        share = self.batch // self.world // self.parts
        for step in range(self.first_step, self.steps):
            for part in range(self.parts):
                first = step * self.batch + part * (self.batch // self.parts) + self.rank * share
                yield [(self.epoch, int(index)) for index in order[first : first + share]]

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.parts


class EvaluationOrder:
    """Every clip exactly once over all processes, without padding: process r takes r, r + world, ..."""

    def __init__(self, size: int, batch: int, *, limit: int | None = None, rank: int = 0, world: int = 1) -> None:
        """`limit`: at most so many clips, evenly spread."""
        every = 1 if limit is None else max(1, -(-size // limit))
        self.indices, self.batch = range(0, size, every)[rank::world], batch

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch):
            yield [(EVALUATION, index) for index in self.indices[first : first + self.batch]]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch)


class TrainingSweep:
    """Every training clip once, in order and as the first epoch draws it, over all processes and without padding."""

    def __init__(self, size: int, batch: int, *, limit: int | None = None, rank: int = 0, world: int = 1) -> None:
        """`limit`: at most so many clips, evenly spread."""
        every = 1 if limit is None else max(1, -(-size // limit))
        self.indices, self.batch = range(0, size, every)[rank::world], batch

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch):
            yield [(0, index) for index in self.indices[first : first + self.batch]]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch)


def _settle(worker: int) -> None:
    """What a loader process does first.

    It belongs to the process that started it and to nobody else: a signal to the whole group asks that process to finish its
    step, for which it needs its loader processes, and when it is killed they must not live on.
    """
    import torch

    torch.set_num_threads(1)  # workers share the cores; threads inside each of them only get in each other's way
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere torch asks every five seconds whether the parent lives
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it has died before that call
            os._exit(1)


def _collate(items: list[Item]) -> Batch:
    """A batch; in a loader process already in the memory in which the other process reads it.

    Its queue would put it there as well, but in a thread, whose exception (memory full) nobody hears of.
    """
    batch = collate(items)
    if get_worker_info() is not None:
        for tensor in (batch.frames, batch.labels, batch.index, batch.valid, *batch.kept.values()):
            tensor.share_memory_()
    return batch


PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that this process gets when its parent dies


def loader_trouble(error: BaseException) -> str | None:
    """One line about an exception that a broken loader process has caused; None for others.

    Torch raises it wherever the main thread is: in the loader's iteration, or in the handler of SIGCHLD.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not any(sign in text for sign in _TROUBLE):
        return None
    first = text.strip().splitlines()[-1] if "Caught RuntimeError" in text else text.strip().splitlines()[0]
    if any(sign in text for sign in _SHARED_MEMORY):
        return (
            f"a loader process cannot hand over its clips ({first}); /dev/shm is probably too small: start the container with "
            f"--shm-size=8g (or --ipc=host), or lower loader.workers or schedule.batch_size"
        )
    if "is killed by signal" in text:
        return _killed(first)
    return (
        f"a loader process is stuck or has died ({first}); find the video with `adafocus prepare check` and name it in "
        f"dataset.bad_list, or raise loader.timeout"
    )


def _killed(how: str) -> str:
    return (
        f"a loader process was killed ({how}); if the memory was full, lower loader.workers or dataset.cache_megabytes, and "
        f"start again"
    )


_SHARED_MEMORY = ("Bus error", "shared memory", "Pin memory thread", "</torch_")
_TROUBLE = (*_SHARED_MEMORY, "timed out", "exited unexpectedly", "is killed by signal")


class Loader:
    """Iterates batches of a data set in a given order; workers live as long as this object.

    Args:
        clips: the data set.
        order: which clips make which batch.
        workers: loader processes; 0 reads in this one.
        timeout: seconds after which a stuck worker ends the run with a message, instead of hanging it.
        pin: pinned memory, for a faster copy to a GPU.
    """

    def __init__(
        self,
        clips: ClipSource,
        order: TrainOrder | EvaluationOrder | TrainingSweep,
        *,
        workers: int = 0,
        timeout: float = 300.0,
        pin: bool = False,
    ) -> None:
        self.clips, self.order = clips, order
        self._processes: list[multiprocessing.process.BaseProcess] = []
        lazy = isinstance(order, EvaluationOrder) and getattr(clips, "candidates", 0)
        self.source = ChosenFrames(clips, workers, pin=pin) if lazy else None
        if workers:
            # Loader processes put sockets into this folder; it is ours to remove, for some end without doing so.
            multiprocessing.util.get_temp_dir()
        self._loader: DataLoader = DataLoader(
            clips,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
            timeout=timeout if workers else 0,
            persistent_workers=workers > 0,
            worker_init_fn=_settle if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Batches in order.

        Raises:
            UserError: a loader process is stuck or has died, or many videos in a row cannot be read.
        """
        self._check_processes()
        others = multiprocessing.active_children()
        iterator = iter(self._loader)
        self._processes += [child for child in multiprocessing.active_children() if child not in others]
        while True:
            self._check_processes()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except VideoError as error:
                reason = str(error).strip().splitlines()[-1]  # a loader process puts its traceback before it
                raise UserError(reason.removeprefix("adafocus.data.video.VideoError: ")) from error
            except RuntimeError as error:
                if (trouble := loader_trouble(error)) is None:
                    raise
                raise UserError(trouble) from error
            batch.source = self.source
            yield batch

    def _check_processes(self) -> None:
        """Torch says in the handler of SIGCHLD that one has died; where Python drops that exception nobody would say it."""
        for process in self._processes:
            if not process.is_alive():
                raise UserError(_killed(f"exit status {process.exitcode}"))

    def __len__(self) -> int:
        return len(self.order)
