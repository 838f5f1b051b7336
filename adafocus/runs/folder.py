"""Run folders: finds out whether a folder is new or holds an unfinished, finished or different run; and its lock."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError
from adafocus.core.files import write_json

NEW, CONTINUE, FINISHED = "new", "continue", "finished"
#: Checkpoint files of a run and of its stages; last.pt comes before best.pt.
_CHECKPOINTS = ("last.pt", "stages/*/last.pt", "best.pt", "stages/*/best.pt")
#: Files of an attempt that trained nothing; they are removed, because a new run would append to them.
_TRACES = ("metrics.jsonl", "run.log", "status.json", "data.json")


def stored_config(folder: Path) -> dict[str, Any] | None:
    """Reads the configuration of the run in a folder, from config.json or, if that is damaged, from a checkpoint.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    values = _table(folder / "config.json")
    checkpoint = next((path for pattern in _CHECKPOINTS for path in sorted(folder.glob(pattern))), None)
    if values is not None or checkpoint is None:
        return values
    from adafocus.training.checkpoint import read

    found = read(checkpoint).get("config")
    if not isinstance(found, dict):
        raise UserError(
            f"{folder} has checkpoints, but neither they nor a config.json say of which run; choose another name=NAME"
        )
    return found


def inspect(folder: Path, identity: dict[str, Any], stored: dict[str, Any] | None) -> str:
    """Finds out whether a folder is for a new run, for one to resume, or holds the finished run; writes nothing.

    A folder in which nothing has been trained yet does not count as a run.

    Args:
        folder: the run folder; it need not exist.
        identity: the part of the configuration that identifies a run (see `config.identity`).
        stored: the same part of the configuration that the folder holds; None for a new folder.

    Returns:
        NEW, CONTINUE or FINISHED.

    Raises:
        UserError: the folder holds a run of another configuration.
    """
    if stored is None:
        return NEW
    summary = _table(folder / "summary.json")
    if stored == identity:
        return FINISHED if (summary or {}).get("state") == "finished" else CONTINUE
    if summary is None and not any(any(folder.glob(pattern)) for pattern in _CHECKPOINTS):
        return NEW
    differs = sorted(_differences(stored, identity))
    raise UserError(
        f"{folder} holds a run of another configuration (it differs in {', '.join(differs[:4])}"
        f"{' ...' if len(differs) > 4 else ''}); choose another name=NAME or delete that folder"
    )


@contextmanager
def claim(folder: Path, *, fresh: bool) -> Iterator[None]:
    """Locks a folder while a job runs in it, as a context, so that no second job writes into it.

    Args:
        folder: the run folder.
        fresh: whether a new run begins; files of an attempt that trained nothing are then removed.

    Raises:
        UserError: the folder is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, ".start.lock"):
        with lock(folder):  # a process whose launcher was killed may still hold the lock
            pass
        for name in _TRACES if fresh else ():
            (folder / name).unlink(missing_ok=True)
        yield


def describe(folder: Path, config: dict[str, Any], *, overrides: list[str], choices: dict[str, str]) -> None:
    """Writes config.json, overrides.json and choices.json (the chosen option of each YAML group) of a run."""
    write_json(folder / "overrides.json", overrides)
    write_json(folder / "choices.json", choices)
    write_json(folder / "config.json", config)


def _table(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file; None if it is missing, damaged or not a JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix


class InUse(UserError):
    """Raised if another process uses the run folder, so that this one must not write to it, not even its status."""


@contextmanager
def lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Holds a lock file in the folder, as a context, so that two processes cannot write the same run.

    The lock is a POSIX lock of the process: the system releases it when the process ends in any way, forked loader
    processes do not hold it, and a second call in the same process succeeds.
    """
    with open(folder / name, "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise InUse(f"{folder} is in use by another process; wait for it or choose another name=NAME") from error
        yield


def check_free(folder: Path) -> None:
    """Checks that no other process uses the folder, before anything is started or written there.

    Raises:
        InUse: another process uses it.
    """
    if (folder / ".lock").is_file():
        with lock(folder):
            pass
