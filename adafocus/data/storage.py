"""Where the bytes of videos come from that are no files of a folder on this disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adafocus.data.annotations import Record
from adafocus.data.remote import RemoteFiles


class Storage(Protocol):
    """Videos that are no files of a folder on this disk."""

    def read(self, record: Record) -> bytes:
        """The bytes of a video; VideoError if it cannot be read."""

    def prefetch(self, records: Sequence[Record]) -> None:
        """Starts reading videos that are decoded next."""


class AnyAddress:
    """Videos whose paths are addresses."""

    def __init__(self, files: RemoteFiles) -> None:
        self.files = files

    def read(self, record: Record) -> bytes:
        """See `Storage`."""
        return self.files.read(self._address(record))

    def prefetch(self, records: Sequence[Record]) -> None:
        """See `Storage`."""
        self.files.prefetch((self._address(record), 0, None) for record in records)

    def _address(self, record: Record) -> str:
        return record.path


class RemoteFolder(AnyAddress):
    """Videos below an address."""

    def __init__(self, files: RemoteFiles, address: str) -> None:
        super().__init__(files)
        self.address = address.rstrip("/")

    def _address(self, record: Record) -> str:
        return f"{self.address}/{record.path}"
