"""SIGINT and SIGTERM in a process of a run: where they end it at once, and where only after the running step.

No torch here: the launcher imports this file as well.
"""

from __future__ import annotations

import multiprocessing.util
import os
import select
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from adafocus.processes.environment import PARENT

CAUGHT = (signal.SIGINT, signal.SIGTERM)
HANG = 10.0  # seconds in which a process must notice a signal; after them it hangs in native code


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end.

    Attributes:
        number: the signal.
        step, steps: the step that was reached and saved, of all steps of this stage; 0 of 0 outside training.
    """

    def __init__(self, number: int, step: int = 0, steps: int = 0) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.step, self.steps = number, step, steps


class Signals:
    """What this process was asked by signals, while it is used as a context manager.

    The same request can reach a process twice: a terminal sends Ctrl-C to the launcher and to the worker, and the launcher
    passes on what it gets. So both ways are counted apart, and only a second signal on one of them ends the process at once.

    Attributes:
        number: the signal that asks to end; 0 while none does.
    """

    def __init__(self) -> None:
        self.number = 0
        self._deferred = False
        self._direct = 0  # signals that were sent to this process itself
        self._passed_on = False  # the next signal is one that the launcher passes on
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python runs handlers in the main thread only; its owner decides there
        for number in CAUGHT:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def accept(self) -> None:
        """From here on signals are taken, those included that have come while Python was importing."""
        if not self._before:
            return
        if launcher := os.environ.pop(PARENT, None):
            threading.Thread(target=self._watch_launcher, args=(int(launcher),), daemon=True).start()
        # The launcher starts us with both signals blocked, so that none is lost while Python imports torch.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only noted in `number`."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted`, one noted earlier included."""
        before, self._deferred = self._deferred, False
        try:
            if self.number:
                raise Interrupted(self.number)
            yield
        finally:
            self._deferred = before

    def ignore(self) -> None:
        """From here on a signal changes nothing any more: the process is on its way out."""
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
        """A byte of the launcher is a signal that it has got; the end of its pipe means that it is gone or gives us up."""
        asked = 0
        while True:
            readable, _, _ = select.select([pipe], [], [], HANG if asked and not self.number else None)
            if not readable:
                leave(128 + asked)
            word = os.read(pipe, 1)
            if not word:
                leave(1)
            asked, self._passed_on = word[0], True
            signal.pthread_kill(threading.main_thread().ident, asked)


def leave(status: int) -> NoReturn:
    """Ends this process without a goodbye, but for the folder in which the sockets of loader processes lie."""
    shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
    os._exit(status)
