"""A run folder is the identity of a run: new, to be continued, finished, or somebody else's."""

from __future__ import annotations

import errno
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
    return FINISHED if _finished(folder) else CONTINUE


def _finished(folder: Path) -> bool:
    """Whether a whole summary says so; a damaged one is written again from the last checkpoint."""
    try:
        return (read_json(folder / "summary.json", dict) or {}).get("state") == "finished"
    except UserError:
        return False


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


class InUse(UserError):
    """Another process writes this run folder: it must not even be told that this start has failed."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the folder: two processes that write the same run would destroy it. The system frees it when we die.

    A POSIX lock: loader processes, which are copies of this one, do not hold it on after its end. It is one of the whole
    process: a second call in the same one succeeds.
    """
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise InUse(f"{folder} is in use by another process; wait for it or choose another name=NAME") from error
        yield


def check_free(folder: Path) -> None:
    """Refuses a folder that another process holds, before anything is started or written there."""
    if (folder / ".lock").is_file():
        with lock(folder):
            pass
