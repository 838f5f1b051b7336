"""A table in a folder of Parquet parts, each of which is there whole or not at all; an interrupted job continues it."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from adafocus.core.errors import UserError
from adafocus.core.files import first_line, read_json, write_bytes, write_json
from adafocus.core.outputs import parquet_schema, write_parquet

#: Readers of Parquet folders skip names that begin with an underscore.
JOB, LOCK, UNFINISHED = "_job.json", "_lock", "_unfinished-"
_PART = re.compile(r"part-(\d{6,})\.parquet")
LARGEST = 100_000  # rows of a part
#: A part is written when this share of the time of the job has passed since the last one, but not more or less often
#: than these seconds. So a killed job loses little of its work, and a long one has few parts.
SHARE, SHORTEST, LONGEST = 0.02, 2.0, 60.0


class PartTable:
    """The rows of a job by id, each once. A context manager; one job at a time may write.

    Args:
        folder: the folder of the parts.
        columns: columns and their types, see `core.outputs.table`; the first is the id.
        job: what all rows of the table have in common, such as the network, as JSON.

    Raises:
        UserError: the folder holds something else or the table of another job, is in use, or cannot be written.
    """

    def __init__(self, folder: Path, columns: Mapping[str, type], job: Mapping[str, Any]) -> None:
        self.folder, self.schema, self.job = folder, parquet_schema(columns), dict(job)
        self.done: set[str] = set()
        self.errors = 0  # rows with an error
        self._rows: list[Mapping[str, Any]] = []
        self._parts = 0
        self._started = self._written = time.monotonic()

    def __enter__(self) -> PartTable:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / LOCK, "ab")  # noqa: SIM115 (held until the job ends)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written ({error.strerror}); choose another folder") from error
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock not inherited by worker processes
        except OSError as error:
            self._lock.close()
            raise UserError(f"{self.folder} is in use by another job; wait for it, or choose another folder") from error
        try:
            self._begin()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            self._lock.close()

    def _begin(self) -> None:
        """Compares the job with that of the folder, and reads which ids are there."""
        known = read_json(self.folder / JOB, dict)
        parts = sorted(path for path in self.folder.iterdir() if not path.name.startswith(("_", ".")))
        if known is None:
            if parts:
                raise UserError(f"{self.folder} holds {parts[0].name} and no job of ours; choose an empty folder")
            write_json(self.folder / JOB, self.job)
        elif known != self.job:
            differs = ", ".join(key for key in {**known, **self.job} if known.get(key) != self.job.get(key))
            raise UserError(f"{self.folder} holds the table of another job (other {differs}); choose another folder")
        for path in self.folder.glob(f"{UNFINISHED}*"):
            path.unlink()
        for path in parts:
            self._read(path)

    def _read(self, path: Path) -> None:
        from pyarrow import parquet

        number = _PART.fullmatch(path.name)
        if number is None:
            raise UserError(f"{path} is no part of this table; move it elsewhere")
        self._parts = max(self._parts, int(number[1]) + 1)
        name = self.schema.names[0]
        try:
            found = parquet.read_table(path, columns=[name, "error"], use_threads=False)  # processes are forked later
        except (OSError, ValueError) as error:  # pyarrow's own exceptions are among them
            raise UserError(f"{path} cannot be read ({first_line(error)}); delete it: it is written again") from error
        self.done.update(found[name].to_pylist())
        self.errors += len(found) - found["error"].null_count

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row. It is in a part soon, see `SHARE`; a second one of an id is left out."""
        key = row[self.schema.names[0]]
        if key in self.done:
            return
        self.done.add(key)
        self.errors += row.get("error") is not None
        self._rows.append(row)
        now = time.monotonic()
        wait = min(max(SHARE * (now - self._started), SHORTEST), LONGEST)
        if now - self._written >= wait or len(self._rows) >= LARGEST:
            self.flush()

    def flush(self) -> None:
        """Writes a part of the rows that are in none."""
        self._written = time.monotonic()
        if not self._rows:
            return
        name = f"part-{self._parts:06d}.parquet"
        unfinished = self.folder / f"{UNFINISHED}{name}"
        write_bytes(unfinished, lambda file: file.write(_parquet(self._rows, self.schema)))
        os.replace(unfinished, self.folder / name)
        self._parts += 1
        self._rows = []


def _parquet(rows: list[Mapping[str, Any]], schema: Any) -> bytes:
    import pyarrow

    found = pyarrow.BufferOutputStream()
    write_parquet(found, rows, schema)
    return found.getvalue().to_pybytes()
