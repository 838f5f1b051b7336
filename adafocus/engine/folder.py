"""A run folder is the identity of a run: new, to be continued, finished, or somebody else's."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError
from adafocus.engine.files import read_json, write_json

NEW, CONTINUE, FINISHED = "new", "continue", "finished"


def inspect(folder: Path, identity: dict[str, Any], stored: dict[str, Any] | None) -> str:
    """What a start in this folder means; writes nothing, so every process may ask.

    Args:
        folder: the run folder; it need not exist.
        identity: the part of the configuration that makes two runs the same.
        stored: that part of the configuration which the folder already holds; None for a fresh folder.

    Returns:
        NEW, CONTINUE or FINISHED.

    Raises:
        UserError: the folder holds a run of another configuration.
    """
    if stored is None:
        return NEW
    if stored != identity:
        differs = sorted(_differences(stored, identity))
        raise UserError(
            f"{folder} holds a run of another configuration (it differs in {', '.join(differs[:4])}"
            f"{' ...' if len(differs) > 4 else ''}); choose another name=NAME or delete that folder"
        )
    return FINISHED if (read_json(folder / "summary.json") or {}).get("state") == "finished" else CONTINUE


def describe(folder: Path, config: dict[str, Any], *, overrides: list[str], choices: dict[str, str]) -> None:
    """Writes what the run is: its configuration, what was typed, and which option of each group was taken."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "overrides.json", overrides)
    write_json(folder / "choices.json", choices)
    write_json(folder / "config.json", config)


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the folder: two processes that write the same run would destroy it. The system frees it when we die."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{folder} is in use by another process; wait for it or choose another name=NAME"
            ) from error
        yield
