"""Finds unreadable video files before training by inspecting their packets, and caches the result for later runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adafocus.data.cache import cache_folder
from adafocus.data.paths import encode, printable
from adafocus.data.processes import in_processes
from adafocus.data.video import inspect_video

KEPT = ".adafocus-inspection.json"
_FORMAT = 1
_LARGEST = 2**28  # maximal size of the cache file in bytes; a million entries take about half of that
_REASON = 300  # maximal number of characters of a reason

#: path -> (size in bytes, time of the last change in nanoseconds, why it is broken or "")
Findings = dict[str, tuple[int, int, str]]


def broken_files(
    paths: Sequence[str],
    root: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    beside: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Finds the unreadable files among `paths` by inspecting packets and decoding one frame; returns path -> reason.

    Results are cached by path, size and modification time, in `root`, or in the user's cache folder if `root` cannot be
    written. Processes that call this at the same time wait for the first one and use its results.

    Args:
        paths: paths relative to `root`.
        root: folder of the videos.
        workers: number of processes.
        timeout: seconds for one file. A file that takes longer counts as readable here, because the result must not
            depend on the load of the machine; dataset.video_timeout limits reading.
        beside: whether results may be cached in `root`, else in the user's cache folder. It is False in evaluation,
            whose root may come from an untrusted run folder.
        progress: called with (done, all) of the files that had to be inspected.
    """
    stamps = {path: stamp for path in dict.fromkeys(paths) if (stamp := _stamp(root / path)) is not None}
    broken = {path: "no regular file of this name can be read" for path in paths if path not in stamps}
    place = _place(root, beside)
    with _locked(place):
        known = {**_load(root / KEPT), **_load(place)}
        current = {path: known[path] for path, stamp in stamps.items() if known.get(path, ())[:2] == stamp}
        waiting = [path for path in stamps if path not in current]
        try:
            outcomes = in_processes(inspect_video, [root / path for path in waiting], workers, timeout)
            for done, outcome in enumerate(outcomes, start=1):
                path = waiting[outcome.number]
                if not outcome.late:
                    current[path] = (*stamps[path], _short(outcome.reason, root / path))
                if progress is not None:
                    progress(done, len(waiting))
        finally:
            if waiting:  # save now and then, so that an interrupted inspection can continue
                _store(place, {**known, **current})
    return broken | {path: reason for path, (_, _, reason) in current.items() if reason}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _short(reason: str, path: Path) -> str:
    return printable(reason.removeprefix(f"{path}: ").replace(f": '{path}'", ""))[:_REASON]


def _place(root: Path, beside: bool) -> Path | None:
    """Returns the cache file for `root`; None if neither `root` nor the user's cache folder can be written."""
    if beside and os.access(root, os.W_OK):
        return root / KEPT
    cache = cache_folder()
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache / f"inspection-{hashlib.sha256(encode(str(root.resolve()))).hexdigest()[:16]}.json"
    return None


@contextmanager
def _locked(place: Path | None) -> Iterator[None]:
    """Holds the lock of the cache file, if the file system supports locks."""
    if place is None:
        yield
        return
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _load(place: Path | None) -> Findings:
    """Reads the cached results, empty if the file is damaged; checks every entry, since the file is not trusted."""
    if place is None:
        return {}
    try:
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return {}
        content: Any = json.loads(place.read_bytes())
        if content["format"] != _FORMAT:
            return {}
        return {path: known for path, value in content["files"].items() if (known := _checked(value)) is not None}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _checked(value: Any) -> tuple[int, int, str] | None:
    if not isinstance(value, list) or [type(part) for part in value] != [int, int, str]:
        return None
    return value[0], value[1], printable(value[2])[:_REASON]


def _store(place: Path | None, findings: Findings) -> None:
    """Replaces the cache file atomically; if that fails, the next run inspects again."""
    if place is None:
        return
    text = json.dumps({"format": _FORMAT, "files": findings}, indent=0)
    part = None
    try:
        handle, part = tempfile.mkstemp(prefix=KEPT, dir=place.parent)
        with open(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(part, 0o644)
        os.replace(part, place)
    except OSError:
        if part is not None:
            with suppress(OSError):
                os.unlink(part)
