"""A folder of limited size that keeps what was read from elsewhere; several processes may use it at a time."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_SHARE = 8  # a process looks at the whole folder after it has added this part of the limit


def cache_folder() -> Path:
    """The user's cache folder for this package; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adafocus"


class Cache(Protocol):
    """What keeps bytes by key."""

    def get(self, key: str) -> bytes | None:
        """The bytes of a key; None if they are not here."""

    def put(self, key: str, data: bytes) -> None:
        """Keeps the bytes of a key, if there is room."""


class MemoryCache:
    """The bytes of the latest keys, in the memory of this process.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self._used = limit, 0
        self._kept: dict[str, bytes] = {}  # the oldest first
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """See `Cache`."""
        return self._kept.get(key)

    def put(self, key: str, data: bytes) -> None:
        """See `Cache`."""
        with self._lock:
            if key in self._kept or len(data) > self.limit:
                return
            self._kept[key] = data
            self._used += len(data)
            while self._used > self.limit:
                self._used -= len(self._kept.pop(next(iter(self._kept))))

    def __reduce__(self) -> tuple[type[MemoryCache], tuple[int]]:
        return MemoryCache, (self.limit,)


class BytesCache:
    """Bytes by key, in files of a folder. If it is full, those that were not used for longest are removed.

    It can be larger than its limit for a while, by up to an eighth for every process that writes. A disk that is full
    or read-only is no error: then nothing is kept.

    Args:
        folder: the folder; it may hold nothing else.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._added = limit  # so that the first write looks at what earlier processes have left

    def get(self, key: str) -> bytes | None:
        """See `Cache`."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """See `Cache`; what is larger than an eighth of the limit is not kept."""
        if len(data) * _SHARE > self.limit:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self.folder, prefix=".")
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                os.replace(part, self._path(key))
            except OSError:
                os.unlink(part)
                raise
            self._added += len(data)
            if self._added * _SHARE > self.limit:
                self._trim()
                self._added = 0

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()

    def _trim(self) -> None:
        """Removes the files that were used longest ago, also parts of killed processes, until an eighth is free."""
        found = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, status.st_size, entry.path))
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if used <= self.limit - self.limit // _SHARE:
                return
            with suppress(OSError):
                os.unlink(path)
            used -= size
