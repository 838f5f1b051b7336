"""A logger: a file that holds the last score and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class LastLine:
    """Writes `last_line.txt` of the run folder.

    Args:
        folder: of the run.
        step: the last step that counts, of a run that is continued.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / "last_line.txt"

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Keeps scores and leaves the losses to others."""
        if kind == "evaluate":
            self.path.write_text(f"step {step}: top1 {values['top1']:.2f}\n", encoding="utf-8")

    def picture(self, name: str, step: int, image: Any) -> None:
        """Pictures do not go into a line."""

    def close(self) -> None:
        """Nothing is open."""
