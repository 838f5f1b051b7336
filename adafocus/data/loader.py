"""Batches of clips, loaded in worker processes, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
from torch.utils.data import DataLoader, Dataset, get_worker_info

from adafocus.core.batch import Batch
from adafocus.core.errors import UserError
from adafocus.core.rng import generator
from adafocus.data.chosen import ChosenFrames
from adafocus.data.dataset import EVALUATION, ChosenSource, ClipSource, Item, collate
from adafocus.data.processes import die_with_parent
from adafocus.data.video import VideoError

Key = tuple[int, int]


class TrainOrder:
    """A batch sampler for training that yields (epoch, index) and can start at any step.

    All processes use the same permutation of the data. An optimizer step takes the next `batch` clips, of which process
    r of w takes the r-th of w equal parts, divided among its accumulation steps. So the clips of a step do not depend
    on the numbers of processes and accumulation steps. The last incomplete step of an epoch is dropped.

    Args:
        size: number of clips in the data set.
        batch: number of clips per optimizer step, over all processes and accumulation steps.
        parts: number of accumulation steps per optimizer step.
        rank, world: index of this process, and number of processes.
        seed: seed of the run.
        classes: the class of each clip, for epochs with as many clips of every class: clips of rare classes are
            repeated, of frequent ones some are left out, others in every epoch. None: every clip once an epoch.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        *,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        classes: Sequence[int] | None = None,
    ) -> None:
        if batch % (world * parts):
            raise ValueError(f"a batch of {batch} cannot be shared by {world} processes in {parts} parts")
        if size < batch:
            raise ValueError(f"a batch of {batch} is larger than the training set of {size} clips")
        self.size, self.batch, self.parts = size, batch, parts
        self.rank, self.world, self.seed = rank, world, seed
        self.classes = None if classes is None else np.asarray(classes)
        self.steps = size // batch
        self.epoch, self.first_step = 0, 0

    def start_at(self, epoch: int, first_step: int) -> None:
        """Sets the epoch and the optimizer step in it at which the next iteration starts."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        share = self.batch // self.world // self.parts
        for step in range(self.first_step, self.steps):
            for part in range(self.parts):
                first = step * self.batch + part * (self.batch // self.parts) + self.rank * share
                yield [(self.epoch, int(index)) for index in order[first : first + share]]

    def _order(self) -> np.ndarray:
        """Returns the clips of the epoch (size,), a function of (seed, epoch)."""
        rng = generator(self.seed, "order", self.epoch)
        if self.classes is None:
            return rng.permutation(self.size)
        found = rng.permutation(np.unique(self.classes))
        parts = []
        for number, label in enumerate(found):
            own = np.flatnonzero(self.classes == label)
            wanted = self.size // len(found) + (number < self.size % len(found))
            parts.append(np.concatenate([rng.permutation(own) for _ in range(-(-wanted // len(own)))])[:wanted])
        return rng.permutation(np.concatenate(parts))

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.parts


class EvaluationOrder:
    """A batch sampler that yields every clip exactly once over all processes; process r takes r, r + world, ...

    Args:
        size: number of clips in the data set.
        batch: number of clips per batch.
        limit: maximal number of clips, evenly spaced in the data set; None: all.
        epoch: EVALUATION for evaluation clips, or the training epoch whose augmented clips are read.
        rank, world: index of this process, and number of processes.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        *,
        limit: int | None = None,
        epoch: int = EVALUATION,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        every = 1 if limit is None else max(1, -(-size // limit))
        self.indices: Sequence[int] = range(0, size, every)[rank::world]
        self.batch, self.epoch = batch, epoch

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch):
            yield [(self.epoch, index) for index in self.indices[first : first + self.batch]]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch)


def _settle(worker: int) -> None:
    """Initializes a loader process.

    The process ignores SIGINT and SIGTERM, since the training process still needs batches to finish its step after such
    a signal to the process group. The system kills it when the training process dies.
    """
    import torch

    torch.set_num_threads(1)  # the loader processes share the cores, so threads within each of them do not help
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))  # blocked while it was started
    die_with_parent()  # elsewhere than on Linux, torch's worker looks every five seconds whether its parent is alive


def _collate(items: list[Item]) -> Batch:
    """Collates items; in a loader process the batch is moved to shared memory here.

    torch's queue would do that too, but in a thread where an exception (shared memory full) is lost.
    """
    batch = collate(items)
    if get_worker_info() is not None:
        for tensor in (
            batch.frames,
            batch.labels,
            batch.index,
            batch.valid,
            batch.teacher,
            batch.subject,
            *batch.kept.values(),
        ):
            if tensor is not None:
                tensor.share_memory_()
    return batch


SOCKET_PATH = 107 if sys.platform == "linux" else 103  # longest path of a Unix socket in bytes, without its final zero


def loader_trouble(error: BaseException) -> str | None:
    """Returns a message for an exception that a failed loader process has caused; None for other exceptions.

    torch raises such exceptions in the loader's iteration, or anywhere in the main thread when SIGCHLD arrives.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not any(sign in text for sign in _TROUBLE):
        return None
    first = text.strip().splitlines()[-1] if "Caught RuntimeError" in text else text.strip().splitlines()[0]
    if any(sign in text for sign in _SHARED_MEMORY):
        return (
            f"a loader process cannot hand over its clips ({first}); /dev/shm is probably too small: start the "
            f"container with --shm-size=8g (or --ipc=host), or lower loader.workers or schedule.batch_size"
        )
    if "is killed by signal" in text:
        return _killed(first)
    return (
        f"a loader process is stuck or has died ({first}); find the video with `adafocus prepare check` and name it in "
        f"dataset.bad_list, or raise loader.timeout"
    )


def _killed(how: str) -> str:
    return (
        f"a loader process was killed ({how}); if the memory was full, lower loader.workers or "
        f"dataset.cache_megabytes, and "
        f"start again"
    )


_SHARED_MEMORY = ("Bus error", "shared memory", "Pin memory thread", "</torch_")
_TROUBLE = (*_SHARED_MEMORY, "timed out", "exited unexpectedly", "is killed by signal")


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Delays SIGINT and SIGTERM, as a context, while loader processes start, since torch cannot clean up in between."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_socket_folder(folder: str) -> None:
    """Checks that loader processes can create their sockets in the temporary folder; else they would hang.

    Raises:
        UserError: the paths of sockets would be longer than the system allows.
    """
    longest = SOCKET_PATH - len("/listener-12345678")
    if len(os.fsencode(folder)) > longest:
        raise UserError(
            f"TMPDIR={os.path.dirname(folder)} is too long for the sockets of loader processes "
            f"(paths of {SOCKET_PATH} bytes at most); set TMPDIR to a shorter folder, or loader.workers=0"
        )


class Loader:
    """Iterates over batches of a data set in a given order; the worker processes live as long as this object.

    Args:
        clips: the data set.
        order: the batch sampler.
        workers: number of loader processes; 0 reads in the calling process.
        timeout: seconds without a batch after which an error ends the run.
        pin: whether to use pinned memory, which is copied to a GPU faster.
    """

    def __init__(
        self,
        clips: ClipSource,
        order: TrainOrder | EvaluationOrder,
        *,
        workers: int = 0,
        timeout: float = 300.0,
        pin: bool = False,
    ) -> None:
        self.clips, self.order = clips, order
        self._processes: list[multiprocessing.process.BaseProcess] = []
        lazy = order.epoch == EVALUATION and bool(getattr(clips, "candidates", 0))
        self.source = ChosenFrames(cast(ChosenSource, clips), workers, pin=pin) if lazy else None
        if workers:
            # Loader processes create sockets in this folder and do not always remove it.
            _check_socket_folder(multiprocessing.util.get_temp_dir())
        self._loader: DataLoader = DataLoader(
            cast(Dataset, clips),  # any object with its two methods
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
        """Yields the batches in order.

        Raises:
            UserError: a loader process hangs or has died, or many consecutive videos cannot be read.
        """
        self._check_processes()
        others = multiprocessing.active_children()
        with _signals_blocked():
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
                raise UserError(reason.removeprefix("adafocus.data.packets.VideoError: ")) from error
            except RuntimeError as error:
                if (trouble := loader_trouble(error)) is None:
                    raise
                raise UserError(trouble) from error
            batch.source = self.source
            yield batch

    def _check_processes(self) -> None:
        """Raises if a loader process has died; torch's SIGCHLD handler does too, but that exception can get lost."""
        for process in self._processes:
            if not process.is_alive():
                raise UserError(_killed(f"exit status {process.exitcode}"))

    def __len__(self) -> int:
        return len(self.order)
