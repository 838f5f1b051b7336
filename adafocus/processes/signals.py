"""Handles SIGINT and SIGTERM: a run ends after the current training step, or at once outside of training.

This module does not import torch, because the launcher uses it too.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing.util
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, cast

from adafocus.processes.environment import PARENT

CAUGHT = (signal.SIGINT, signal.SIGTERM)
HANG = 10.0  # seconds after which a process that has not reacted to a signal is assumed to hang in native code


class Interrupted(KeyboardInterrupt):
    """Raised when a signal asks this process to end.

    Attributes:
        number: the signal.
        step, steps: the last step, whose state was saved, and the number of steps of the stage; 0 and 0 outside
            training.
    """

    def __init__(self, number: int, step: int = 0, steps: int = 0) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.step, self.steps = number, step, steps


class Signals:
    """Receives SIGINT and SIGTERM while it is used as a context manager.

    A terminal sends Ctrl-C both to the launcher and to its processes, and the launcher forwards it, so that one key
    press can arrive twice. Direct and forwarded signals are therefore counted separately, and only a second one of the
    same kind ends the process at once.

    Attributes:
        number: the signal received; 0 if there is none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._deferred = False
        self._direct = 0  # number of signals sent to this process directly
        self._passed_on = False  # whether the next signal is one that the launcher forwards
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread can set signal handlers, so its existing ones are kept
        for number in CAUGHT:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def accept(self) -> None:
        """Unblocks the signals; those that arrived during the imports are handled now."""
        if not self._before:
            return
        if launcher := os.environ.pop(PARENT, None):
            threading.Thread(target=self._watch_launcher, args=(int(launcher),), daemon=True).start()
        # The launcher starts this process with both signals blocked, so that none is lost while torch is imported.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Returns a context in which a signal is only stored in `number`."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Returns a context in which a signal raises `Interrupted`; one that was stored before raises at once."""
        before, self._deferred = self._deferred, False
        try:
            if self.number:
                raise Interrupted(self.number)
            yield
        finally:
            self._deferred = before

    def ignore(self) -> None:
        """Ignores all further signals, because the process is ending."""
        self._deferred = True

    def _receive(self, number: int, _: object) -> None:
        passed_on, self._passed_on = self._passed_on, False
        if not passed_on:
            self._direct += 1
            if self._direct > 1:
                leave(128 + number)
        if self.number:
            return
        self.number = number
        if not self._deferred:
            raise Interrupted(number)

    def _watch_launcher(self, pipe: int) -> None:
        """Reads the launcher's pipe: a byte is a forwarded signal; its end means that the launcher died or gave up."""
        asked = 0
        while True:
            readable, _, _ = select.select([pipe], [], [], HANG if asked and not self.number else None)
            if not readable:
                leave(128 + asked)
            word = os.read(pipe, 1)
            if not word:
                leave(1)
            asked, self._passed_on = word[0], True
            signal.pthread_kill(cast(int, threading.main_thread().ident), asked)  # a running thread has one


def exit_process(status: int) -> NoReturn:
    """Exits with Python's cleanup but without that of C++.

    After an interrupted collective a thread of gloo may still run; destroying its object at exit aborts the process
    with "terminate called without an active exception" and hides the exit status.
    """
    gc.collect()  # ends loader processes that reference cycles still hold
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the output is a closed pipe
            stream.flush()
    os._exit(status)


def leave(status: int) -> NoReturn:
    """Exits at once without Python's cleanup, except that the loader processes' socket folder is removed."""
    shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
    os._exit(status)
