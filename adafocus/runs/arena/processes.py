"""Runs trainings in parallel processes; repeating the command continues those that were interrupted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adafocus.config.compose import quoted
from adafocus.core.errors import printable
from adafocus.core.files import read_json
from adafocus.processes.signals import Interrupted, Signals
from adafocus.runs.sweep import let_jobs_import_us

PATIENCE = 60.0  # seconds that interrupted runs get to save their state


@dataclass(frozen=True)
class Step:
    """A run in a process of its own.

    Attributes:
        folder: its run folder.
        overrides: the overrides of `adafocus run` that start or continue it.
        then: the step that follows, such as an evaluation of the trained network.
    """

    folder: Path
    overrides: tuple[str, ...]
    then: Step | None = None

    @property
    def last(self) -> Step:
        """The last step of the chain that begins here."""
        return self if self.then is None else self.then.last


def run(
    chains: Sequence[Step], *, jobs: int, say: Callable[[str], None], ended: Callable[[], None] = lambda: None
) -> list[Step]:
    """Runs all chains of steps, `jobs` at a time, and returns the steps that failed; skips finished ones.

    A failure ends its own chain only. The output of each run is written to `logs/` beside its folder.

    Args:
        chains: the first step of each.
        jobs: number of processes at the same time.
        say: called with a line when a chain has ended.
        ended: called after that.

    Raises:
        Interrupted: a signal arrived, and the running steps have saved their state.
    """
    let_jobs_import_us()
    waiting = [step for first in chains if (step := _unfinished(first)) is not None]
    count, done = len(chains), len(chains) - len(waiting)
    if done:
        say(f"{done} of {count} runs are finished already")
    running: dict[subprocess.Popen[bytes], Step] = {}
    failed: list[Step] = []
    with Signals() as signals, signals.deferred():  # an exception between starting and noting a process would lose it
        while waiting or running:
            if signals.number:
                _end(running)
                raise Interrupted(signals.number)
            while waiting and len(running) < jobs:
                step = waiting.pop(0)
                running[_start(step)] = step
            for process in [process for process in running if process.poll() is not None]:
                step, code = running.pop(process), process.returncode
                if not code and step.then is not None:
                    waiting.insert(0, step.then)
                    continue
                done, failed = done + 1, [*failed, step] if code else failed
                say(f"[{done}/{count}] {step.folder.name}: {_outcome(step, code)}")
                ended()
            time.sleep(0.1)
    return failed


def _unfinished(step: Step | None) -> Step | None:
    """The first step of a chain that is not finished."""
    while step is not None and finished(step.folder):
        step = step.then
    return step


def _log(step: Step) -> Path:
    return step.folder.parent / "logs" / f"{step.folder.name}.log"


def _start(step: Step) -> subprocess.Popen[bytes]:
    log = _log(step)
    log.parent.mkdir(parents=True, exist_ok=True)
    place = f"hydra.run.dir={quoted(str(step.folder))}"
    call = [sys.executable, "-m", "adafocus.cli", "run", *step.overrides, place]
    with log.open("wb") as output:
        # In its own session the process does not get Ctrl-C from the terminal in addition to the signal of `_end`; a
        # second signal would end it before it saves its state.
        return subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _end(running: Iterable[subprocess.Popen[bytes]]) -> None:
    """Asks processes to save their state and end, and kills those that do not."""
    for process in running:
        process.terminate()
    limit = time.monotonic() + PATIENCE
    for process in running:
        try:
            process.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def finished(folder: Path) -> bool:
    """Returns whether a run folder has a finished run."""
    return (read_json(folder / "summary.json", dict) or {}).get("state") == "finished"


def _outcome(step: Step, code: int) -> str:
    if code == 0:
        return f"score {read_json(step.folder / 'summary.json', dict)['score']:.1f}"
    lines = _log(step).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed: {printable(lines[-1]) if lines else f'exit status {code}'}"
