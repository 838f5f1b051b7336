"""Files of training checkpoints, `last.pt` and `best.pt`: tensors and plain data, written atomically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus.core.errors import UserError
from adafocus.core.files import first_line, write_bytes
from adafocus.core.versions import current_checkpoint

LAST, BEST = "last.pt", "best.pt"
FORMAT = 1


class CheckpointStore:
    """Saves and loads the last and the best checkpoint of a run.

    Args:
        folder: the folder of the run, or of one of its stages.
        active: whether this process writes; it then removes incomplete files of a killed process.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.folder = folder
        if active:
            for name in (LAST, BEST):
                (folder / f"{name}.part").unlink(missing_ok=True)

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Writes a state.

        Raises:
            NotFinite: the state holds infinite or NaN numbers; the older file is kept.
            UserError: the file cannot be written; the older file is kept.
        """
        if not all_finite(state):
            raise NotFinite
        write_bytes(self.folder / (BEST if best else LAST), lambda file: torch.save({"format": FORMAT, **state}, file))

    def amend(self, changes: dict[str, Any], *, best: bool = False) -> None:
        """Replaces entries of the last or the best state that was saved."""
        self.save({**(self.load(best=best) or {}), **changes}, best=best)

    def load(self, *, best: bool = False) -> dict[str, Any] | None:
        """Returns the saved state, on the CPU; None if nothing has been saved yet."""
        path = self.folder / (BEST if best else LAST)
        return read(path) if path.is_file() else None


class NotFinite(Exception):
    """Raised for a state with infinite or NaN numbers, which is not saved."""


def all_finite(state: Any) -> bool:
    """Returns whether all floating-point tensors in nested dicts and lists are finite; synchronizes once per device."""
    tensors = [tensor for tensor in _tensors(state) if tensor.is_floating_point() and tensor.numel()]
    largest = torch.nn.utils.get_total_norm(tensors, norm_type=float("inf"))
    return bool(largest.isfinite())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def read(path: Path) -> dict[str, Any]:
    """Reads a training checkpoint of this package. A file with anything but tensors and plain data is refused.

    Raises:
        UserError: the file is damaged or not a checkpoint of this package.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read ({first_line(error)}); delete it or name another") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} was not written by this version of adafocus; delete it or name another")
    try:
        return current_checkpoint(state)
    except TypeError as error:
        raise UserError(f"checkpoint {path} names its weights by something else than words; delete it") from error
