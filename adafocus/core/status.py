"""Writes and reads status.json of a run folder: the state and the step of a run, for other programs."""

from __future__ import annotations

import signal
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_json

ENDED = ("failed", "interrupted", "finished")


def write_status(folder: Path, state: str, *, step: int = 0, steps: int = 0, error: str | None = None) -> None:
    """Writes the state: running, finished, failed or interrupted, with the step reached and the reason of a failure."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(folder / "status.json", {"state": state, "step": step, "steps": steps, "error": error, "time": now})


def read_status(folder: Path) -> dict[str, Any]:
    """Reads status.json; state None and step 0 if it is missing or damaged, because no run depends on it."""
    try:
        found = read_json(folder / "status.json", dict) or {}
    except UserError:
        return {"state": None, "step": 0, "steps": 0}
    numbers = {key: found[key] if isinstance(found.get(key), int) else 0 for key in ("step", "steps")}
    return {"state": found.get("state"), **numbers}


def restart_status(folder: Path) -> None:
    """Marks a run that starts or resumes as running; the step of an earlier attempt is kept."""
    old = read_status(folder)
    write_status(folder, "running", step=old["step"], steps=old["steps"])


def end_status(folder: Path, state: str, reason: str, *, step: int = 0, steps: int = 0) -> None:
    """Writes the state of a run that failed or was interrupted; without `steps`, the recorded step is kept."""
    if not steps:
        old = read_status(folder)
        step, steps = old["step"], old["steps"]
    # If the disk is full, the status cannot be written either; the reason is printed on the terminal.
    with suppress(UserError):
        write_status(folder, state, step=step, steps=steps, error=reason)


def interruption(number: int, step: int, steps: int) -> str:
    """Returns the message for a run that was ended by signal `number`."""
    where = f" at step {step} of {steps}" if steps else ""
    return f"interrupted ({signal.Signals(number).name}){where}; the same command continues this run"
