"""Clips to batches, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader

from adafocus.core.batch import Batch
from adafocus.core.errors import UserError
from adafocus.core.rng import generator
from adafocus.data.chosen import ChosenFrames
from adafocus.data.dataset import EVALUATION, ClipSource, collate
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


def _one_thread(worker: int) -> None:
    import torch

    torch.set_num_threads(1)  # workers share the cores; threads inside each of them only get in each other's way


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
        lazy = isinstance(order, EvaluationOrder) and getattr(clips, "candidates", 0)
        self.source = ChosenFrames(clips, workers, pin=pin) if lazy else None
        self._loader: DataLoader = DataLoader(
            clips,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            timeout=timeout if workers else 0,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Batches in order.

        Raises:
            UserError: a loader process is stuck or has died, or many videos in a row cannot be read.
        """
        iterator = iter(self._loader)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except VideoError as error:
                reason = str(error).strip().splitlines()[-1]  # a loader process puts its traceback before it
                raise UserError(reason.removeprefix("adafocus.data.video.VideoError: ")) from error
            except RuntimeError as error:
                if "timed out" not in str(error) and "exited unexpectedly" not in str(error):
                    raise
                raise UserError(
                    f"a loader process is stuck or has died ({str(error).splitlines()[0]}); find the video with "
                    f"`adafocus prepare check` and name it in dataset.bad_list, or raise loader.timeout"
                ) from error
            batch.source = self.source
            yield batch

    def __len__(self) -> int:
        return len(self.order)
