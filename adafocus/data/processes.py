"""Processes files in worker processes, so that a file with which the decoder crashes or hangs affects no other."""

from __future__ import annotations

import multiprocessing.context
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adafocus.data.video import VideoError


@dataclass(frozen=True)
class Outcome:
    """Outcome for path number `number`: the result of `work`, or None and the reason in one line."""

    number: int
    result: Any
    reason: str = ""
    late: bool = False  # whether the time limit ended it, which may be due to the load of the machine


@dataclass
class _Worker:
    """A worker process and the index of the file that it works on; `number` is None while it is idle."""

    process: BaseProcess
    pipe: Connection
    number: int | None = None
    deadline: float = 0.0


def _serve(work: Callable[[Path], Any], pipe: Connection, parent: int) -> None:
    """Main loop of a worker: sends (result, "") or (None, reason) for every path it receives, until its parent dies."""
    try:
        while True:
            while not pipe.poll(2.0):  # the pipe stays open when the parent dies, because the other workers hold it too
                if os.getppid() != parent:
                    return
            path = pipe.recv()
            try:
                pipe.send((work(path), ""))
            except VideoError as error:
                pipe.send((None, str(error)))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return


def in_processes(
    work: Callable[[Path], Any], paths: Sequence[Path], workers: int = 1, timeout: float = 60.0
) -> Iterator[Outcome]:
    """Calls `work` for every path in `workers` processes, and yields the outcomes in the order in which they finish.

    The result is None if `work` raises VideoError, takes longer than `timeout` seconds or crashes its process, which is
    then replaced by a new one.
    """
    # Forked processes have the decoders loaded already.
    context: multiprocessing.context.ForkContext | multiprocessing.context.SpawnContext
    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork") if forks else multiprocessing.get_context("spawn")
    pool: list[_Worker] = []

    def start() -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    waiting = iter(range(len(paths)))
    try:
        pool += [start() for _ in range(max(1, min(workers, len(paths))) if paths else 0)]
        while pool:
            for worker in pool[:]:
                if worker.number is None and (number := next(waiting, None)) is not None:
                    worker.number, worker.deadline = number, time.monotonic() + timeout
                    worker.pipe.send(paths[number])
                elif worker.number is None:
                    pool.remove(worker)
                    _end(worker)
            if not pool:
                return
            nearest = min(worker.deadline for worker in pool)
            ready = wait([worker.pipe for worker in pool], timeout=max(0.0, nearest - time.monotonic()))
            for place, worker in enumerate(pool):
                late = worker.pipe not in ready
                if late and time.monotonic() < worker.deadline:
                    continue
                number, worker.number = worker.number, None
                assert number is not None  # idle workers have left the pool
                try:
                    if late:
                        raise TimeoutError
                    yield Outcome(number, *worker.pipe.recv())
                except (EOFError, OSError) as error:
                    reason = f"not decoded within {timeout:g} s"
                    if not isinstance(error, TimeoutError):  # the process ended without sending a result
                        worker.process.join()
                        reason = f"the decoder crashed (exit status {worker.process.exitcode})"
                    _end(worker)
                    pool[place] = start()
                    yield Outcome(number, None, f"{paths[number]}: {reason}", late)
    finally:
        for worker in pool:
            _end(worker)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.pipe.close()
    worker.process.join()
