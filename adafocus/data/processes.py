"""Works on items in worker processes, so that a file that crashes or hangs the decoder affects no other file."""

from __future__ import annotations

import ctypes
import multiprocessing.context
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from adafocus.core.errors import UserError
from adafocus.data.packets import VideoError

PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that this process gets when its parent dies


@dataclass(frozen=True)
class Outcome:
    """Outcome for item number `number`: the result of `work`, or None and the reason in one line."""

    number: int
    result: Any
    reason: str = ""
    late: bool = False  # whether the time limit ended it, which may be due to the load of the machine
    died: bool = False  # whether its process ended, which may have a cause elsewhere, such as full memory


@dataclass
class _Worker:
    """A worker process and the index of the item that it works on; `number` is None while it is idle."""

    process: BaseProcess
    pipe: Connection
    number: int | None = None
    limit: float = 0.0
    deadline: float = 0.0


def die_with_parent() -> None:
    """On Linux, lets the system kill this process as soon as its parent is dead."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it has died before that call
            os._exit(1)


def _serve(work: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    """Main loop of a worker: sends (result, "") or (None, reason) for every item it receives, until its parent dies."""
    die_with_parent()
    try:
        while True:
            while not pipe.poll(2.0):  # the pipe stays open when the parent dies, because the other workers hold it too
                if os.getppid() != parent:
                    return
            item = pipe.recv()
            try:
                pipe.send((work(item), ""))
            except VideoError as error:
                pipe.send((None, str(error)))
            except UserError as error:
                pipe.send((None, error))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return


class _Pool:
    """The workers of `in_processes`, whose arguments are explained there."""

    def __init__(
        self, work: Callable[[Any], Any], items: Sequence[Any], timeout: float | Callable[[Any], float], fork: bool
    ) -> None:
        self.work, self.items, self.timeout = work, items, timeout
        self.given = 0  # number of items that workers have got
        forks = fork and "fork" in multiprocessing.get_all_start_methods()
        self.context: multiprocessing.context.ForkContext | multiprocessing.context.SpawnContext
        self.context = multiprocessing.get_context("fork") if forks else multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []

    def start(self) -> _Worker:
        """Returns a new worker, which is idle."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.work, theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def give(self, worker: _Worker) -> None:
        """Gives the next item to a worker if it is idle."""
        if worker.number is None and self.given < len(self.items):
            item = self.items[self.given]
            worker.limit = self.timeout(item) if callable(self.timeout) else self.timeout
            worker.number, worker.deadline, self.given = self.given, time.monotonic() + worker.limit, self.given + 1
            with suppress(OSError):  # that the process is dead is found out where its answer is read
                worker.pipe.send(item)


def in_processes(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int = 1,
    timeout: float | Callable[[Any], float] = 60.0,
    *,
    fork: bool = True,
) -> Iterator[Outcome]:
    """Calls `work` for every item in `workers` processes, and yields the outcomes in the order in which they finish.

    The result is None if `work` raises VideoError, takes too long or its process ends, which is then replaced by a new
    one. Items may be appended while outcomes are yielded. A process gets its next item before its outcome is yielded.

    Args:
        work: the work for one item.
        items: what it works on.
        workers: number of processes.
        timeout: seconds that an item may take, or a function of the item.
        fork: whether processes may be forked: they then have the decoders loaded, and share the memory of this one.

    Raises:
        UserError: `work` has raised one.
    """
    pool = _Pool(work, items, timeout, fork)
    try:
        pool.workers += [pool.start() for _ in range(max(1, min(workers, len(items))) if items else 0)]
        while True:
            for worker in pool.workers:
                pool.give(worker)
            busy = [worker for worker in pool.workers if worker.number is not None]
            if not busy:
                return
            nearest = min(worker.deadline for worker in busy)
            ready = wait([worker.pipe for worker in busy], timeout=max(0.0, nearest - time.monotonic()))
            for worker in busy:
                late = worker.pipe not in ready
                if late and time.monotonic() < worker.deadline:
                    continue
                number, worker.number = worker.number, None
                assert number is not None
                try:
                    if late:
                        raise TimeoutError
                    result, reason = worker.pipe.recv()
                except (EOFError, OSError) as error:
                    died = not isinstance(error, TimeoutError)
                    pool.workers[pool.workers.index(worker)] = pool.start()
                    yield Outcome(number, None, f"{items[number]}: {_end(worker, died)}", late, died)
                    continue
                if isinstance(reason, UserError):
                    raise reason
                pool.give(worker)
                yield Outcome(number, result, reason)
    finally:
        for worker in pool.workers:
            _end(worker)


def _end(worker: _Worker, died: bool = False) -> str:
    """Ends a worker; returns why it has given no answer, if it died by itself or took too long."""
    if died:
        worker.process.join()
    reason = f"not decoded within {worker.limit:g} s"
    worker.process.kill()
    worker.pipe.close()
    worker.process.join()
    return f"the decoder crashed (exit status {worker.process.exitcode})" if died else reason
