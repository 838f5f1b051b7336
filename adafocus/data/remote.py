"""Reads videos behind addresses such as s3://bucket/clip.mp4 by byte ranges, through fsspec.

A request that fails or stalls is repeated; what cannot be read in the end is a VideoError, as for a file on this disk.
Nothing is known about who wrote an address, so only file systems that fetch data are allowed: none that runs code,
reads local files or leads through another one (`file://`, `reference://`, `zip://...::http://...`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from adafocus.core.files import first_line
from adafocus.data.cache import Cache, MemoryCache
from adafocus.data.packets import VideoError

#: Protocols of fsspec that addresses may have; none reads this machine's files or runs code.
PROTOCOLS = ("abfs", "abfss", "az", "gcs", "gs", "hf", "http", "https", "memory", "s3", "s3a")
BLOCK = 2**23  # bytes of a request: most clips need one, and a failed one costs little of a long video
ATTEMPTS = 3
WAITS = (0.2, 1.0)  # seconds before the second and the third attempt
LATEST = 2**27  # bytes in memory of the videos that were read last
AT_ONCE = 8  # requests of a process at a time


def check_address(address: str) -> str:
    """The address itself.

    Raises:
        VideoError: its protocol is not allowed.
    """
    protocol, separator, rest = address.partition("://")
    if not separator or protocol not in PROTOCOLS or "::" in rest:
        raise VideoError(f"{address}: only addresses of {', '.join(PROTOCOLS)} are read, without chains (::)")
    if any(ord(letter) < 32 for letter in address):
        raise VideoError(f"{address}: control characters in it")
    return address


class RemoteFiles:
    """Reads files behind addresses, or parts of them; for use by one process and its threads.

    Requests that were announced by `prefetch` run while others are decoded.

    Args:
        timeout: seconds that one request may take.
        cache: keeps what was read, for later epochs and processes; None: memory, for the chosen frames of a video.
    """

    def __init__(self, timeout: float = 30.0, cache: Cache | None = None) -> None:
        self.timeout, self.cache = timeout, cache or MemoryCache(LATEST)
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[tuple[str, int, int | None], Future[bytes]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "cache": self.cache, "_process": 0, "_pool": None, "_coming": {}}

    def prefetch(self, wanted: Iterable[tuple[str, int, int | None]]) -> None:
        """Starts reading; `read` of the same arguments returns each result, once.

        Args:
            wanted: (address, first byte, number of bytes or None for all) of each.
        """
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool, self._process, self._coming = ThreadPoolExecutor(AT_ONCE, "remote files"), os.getpid(), {}
        for key in wanted:
            if key not in self._coming:
                self._coming[key] = self._pool.submit(self._read, *key)

    def read(self, address: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file.

        Args:
            address: the file.
            start: the first byte.
            size: number of bytes; None: the whole file.

        Raises:
            VideoError: the address is not allowed, or cannot be read after several attempts.
        """
        if self._process == os.getpid() and (coming := self._coming.pop((address, start, size), None)) is not None:
            return coming.result()
        return self._read(address, start, size)

    def fresh(self, address: str) -> bytes:
        """All bytes of a file as they are now, whatever the cache has.

        Raises:
            FileNotFoundError: there is no such file.
            VideoError: as `read`.
        """
        check_address(address)
        try:
            return self._whole(address)
        except VideoError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from error
            raise

    def _read(self, address: str, start: int, size: int | None) -> bytes:
        check_address(address)
        key = f"{address} {start} {size}"
        if (kept := self.cache.get(key)) is not None:
            return kept
        data = self._whole(address) if size is None else self._part(address, start, size)
        self.cache.put(key, data)
        return data

    def _whole(self, address: str) -> bytes:
        """All bytes; the size is asked for only if there are more than a block, since that is another request."""
        parts = [self._request(address, 0, BLOCK)]
        if len(parts[0]) == BLOCK:  # more would mean that the server ignores ranges and has sent everything
            size = self._attempt(address, lambda system, path, **options: system.info(path, **options)).get("size")
            if size is None:
                raise VideoError(f"{address}: the server does not say how long this file is")
            while (done := BLOCK * len(parts)) < size:
                parts.append(self._part(address, done, min(BLOCK, size - done)))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, address: str, start: int, size: int) -> bytes:
        data = self._request(address, start, start + size)
        if len(data) != size:
            raise VideoError(
                f"{address}: {len(data)} bytes came instead of bytes {start} to {start + size}; the file is shorter, "
                f"or its server reads no byte ranges"
            )
        return data

    def _request(self, address: str, start: int, end: int) -> bytes:
        def fetch(system: Any, path: str, **options: Any) -> bytes:
            return system.cat_file(path, start=start, end=end, **options)

        return self._attempt(address, fetch)

    def _attempt(self, address: str, work: Any) -> Any:
        """Calls `work(system, path)`, again after a failure that may pass."""
        for wait in (*WAITS, None):
            try:
                system, path = file_system(address)
                # File systems that work without asyncio have time limits of their own.
                return work(system, path, **({"timeout": self.timeout} if system.async_impl else {}))
            except Exception as error:  # every file system has its own exceptions
                if wait is None or _final(error):
                    raise VideoError(f"{address}: cannot be fetched ({_reason(error)})") from error
            time.sleep(wait)
        raise AssertionError  # the last round returns or raises


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an allowed address, and the path in it; fsspec keeps one for each process."""
    import fsspec

    return fsspec.core.url_to_fs(check_address(address))


def _final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return refused or isinstance(error, (FileNotFoundError, PermissionError, ImportError, VideoError))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, ImportError):
        return f'{first_line(error)}; pip install "adafocus[remote]" brings http and s3'
    return f"{type(error).__name__}: {first_line(error)}"
