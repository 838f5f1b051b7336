"""A run folder is the identity of a run: new, to be continued, finished, or another run's."""

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
#: Checkpoints of a run and of its stages, the last before the best.
_CHECKPOINTS = ("last.pt", "stages/*/last.pt", "best.pt", "stages/*/best.pt")
#: What an attempt leaves that trained nothing, and that another run would be added to.
_TRACES = ("metrics.jsonl", "run.log", "status.json", "data.json")


def stored_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of the run in a folder: of config.json, or of a checkpoint where that file is gone or damaged.

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
            f"{folder} has no config.json, and its checkpoints do not say what they are of; choose another name=NAME"
        )
    return found


def inspect(folder: Path, identity: dict[str, Any], stored: dict[str, Any] | None) -> str:
    """What a start in this folder means; writes nothing, so every process may ask.

    A folder in which nothing was trained yet, because a mistake was found late, belongs to no run.

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
    """Holds a folder while a job is started in it and runs, so that no second start writes into it.

    Args:
        fresh: a run begins here: what an attempt left that trained nothing is removed.

    Raises:
        UserError: the folder is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, ".start.lock"):
        with lock(folder):  # a process whose launcher was killed may still hold it
            pass
        for name in _TRACES if fresh else ():
            (folder / name).unlink(missing_ok=True)
        yield


def describe(folder: Path, config: dict[str, Any], *, overrides: list[str], choices: dict[str, str]) -> None:
    """Writes what the run is: its configuration, what was typed, and which option of each group was taken."""
    write_json(folder / "overrides.json", overrides)
    write_json(folder / "choices.json", choices)
    write_json(folder / "config.json", config)


def _table(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None where it is absent, damaged or no table."""
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
    """Another process writes this run folder: it must not even be told that this start has failed."""


@contextmanager
def lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Holds a lock file of the folder: two processes that write the same run would destroy it.

    A POSIX lock: the system frees it when the process ends, however it ends, and loader processes, which are copies of
    this one, do not hold it on. It is one of the whole process: a second call in the same one succeeds.
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
    """Refuses a folder that another process holds, before anything is started or written there."""
    if (folder / ".lock").is_file():
        with lock(folder):
            pass
