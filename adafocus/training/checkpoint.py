"""Checkpoints: tensors and plain data, written whole or not at all."""

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


class Keeper:
    """Keeps the last and the best state of a run in its folder.

    Args:
        folder: of the run, or of one of its stages.
        active: this process writes there; what a killed one has left half-written is removed.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.folder = folder
        if active:
            for name in (LAST, BEST):
                (folder / f"{name}.part").unlink(missing_ok=True)

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Writes a state.

        Raises:
            NotFinite: it holds a number that is infinite or not a number; the older file stays.
            UserError: it cannot be written; the older file stays.
        """
        if not all_finite(state):
            raise NotFinite
        write_bytes(self.folder / (BEST if best else LAST), lambda file: torch.save({"format": FORMAT, **state}, file))

    def amend(self, changes: dict[str, Any], *, best: bool = False) -> None:
        """Replaces entries of a saved state."""
        self.save({**(self.load(best=best) or {}), **changes}, best=best)

    def load(self, *, best: bool = False) -> dict[str, Any] | None:
        """The saved state, on the CPU; None where nothing was saved yet."""
        path = self.folder / (BEST if best else LAST)
        return read(path) if path.is_file() else None


class NotFinite(Exception):
    """A state that must not be saved."""


def all_finite(state: Any) -> bool:
    """Whether all floating-point tensors in nested dicts and lists are finite; one transfer from each device."""
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
    """A checkpoint of ours. Only tensors and plain data are read: a file that holds anything else is refused.

    Raises:
        UserError: the file is no checkpoint of ours. Any bytes may lie there, and torch.load answers them with
            exceptions of many types.
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
