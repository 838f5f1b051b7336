"""`status.json`: where a run stands, for other programs and for the next start in its folder."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from adafocus.engine.files import write_json


def write_status(folder: Path, state: str, *, step: int = 0, steps: int = 0, error: str | None = None) -> None:
    """Writes the state: running, finished, failed or interrupted, with the step reached and the reason of a failure."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(folder / "status.json", {"state": state, "step": step, "steps": steps, "error": error, "time": now})
