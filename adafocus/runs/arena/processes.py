"""Runs the trials of an arena in parallel processes; repeating the command continues interrupted trials."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from adafocus.core.errors import printable
from adafocus.core.files import read_json
from adafocus.processes.signals import Interrupted, Signals
from adafocus.runs.arena.plan import Trial, command
from adafocus.runs.sweep import let_jobs_import_us

PATIENCE = 60.0  # seconds that interrupted runs get to save their state


def run(trials: Sequence[Trial], *, jobs: int, say: Callable[[str], None]) -> list[Trial]:
    """Runs all trials that are not finished, `jobs` at a time, and returns those that failed.

    The output of each run is written to `logs/` in the arena's folder.

    Raises:
        Interrupted: a signal arrived, and the running trials have saved their state.
    """
    let_jobs_import_us()
    waiting = [trial for trial in trials if not finished(trial.folder)]
    count, done = len(trials), len(trials) - len(waiting)
    if done:
        say(f"{done} of {count} runs are finished already")
    running: dict[subprocess.Popen[bytes], Trial] = {}
    failed = []
    with Signals() as signals, signals.deferred():  # an exception between starting and noting a process would lose it
        while waiting or running:
            if signals.number:
                _end(running)
                raise Interrupted(signals.number)
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                running[_start(trial)] = trial
            for process in [process for process in running if process.poll() is not None]:
                trial, done = running.pop(process), done + 1
                failed += [trial] if process.returncode else []
                say(f"[{done}/{count}] {trial.folder.name}: {_outcome(trial, process.returncode)}")
            time.sleep(0.1)
    return failed


def _log(trial: Trial) -> Path:
    return trial.folder.parent / "logs" / f"{trial.folder.name}.log"


def _start(trial: Trial) -> subprocess.Popen[bytes]:
    log = _log(trial)
    log.parent.mkdir(parents=True, exist_ok=True)
    call = [sys.executable, "-m", "adafocus.cli", *command(trial)]
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


def _outcome(trial: Trial, code: int) -> str:
    if code == 0:
        return f"score {read_json(trial.folder / 'summary.json', dict)['score']:.1f}"
    lines = _log(trial).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed: {printable(lines[-1]) if lines else f'exit status {code}'}"
