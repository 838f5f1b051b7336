"""Checkpoints: tensors and plain data, written whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from adafocus.core.errors import UserError
from adafocus.core.versions import current_checkpoint
from adafocus.engine.files import write_bytes

LAST, BEST = "last.pt", "best.pt"
FORMAT = 1


class Keeper:
    """Keeps the last and the best state of a run in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        write_bytes(self.folder / (BEST if best else LAST), lambda file: torch.save({"format": FORMAT, **state}, file))

    def amend(self, changes: dict[str, Any], *, best: bool = False) -> None:
        """Replaces entries of a saved state."""
        self.save({**(self.load(best=best) or {}), **changes}, best=best)

    def load(self, *, best: bool = False) -> dict[str, Any] | None:
        """The saved state, on the CPU; None where nothing was saved yet."""
        path = self.folder / (BEST if best else LAST)
        return read(path) if path.is_file() else None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of ours. Only tensors and plain data are read: a file that holds anything else is refused."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({str(error).splitlines()[0]}); delete it or name another"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} was not written by this version of adafocus")
    return current_checkpoint(state)
