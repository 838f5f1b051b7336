"""Output files of commands: checks them before the work starts, and writes tables row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from adafocus.core.errors import UserError

TABLES = (".csv", ".jsonl", ".parquet")
#: Characters at the start of a cell that make spreadsheet programs read it as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def writable(option: str, path: Path) -> Path:
    """Checks that a file can be written and returns its path; no file is left behind.

    Raises:
        UserError: the folder does not exist, is not writable, or the path is a folder.
    """
    there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror or error}); choose another") from error
    return path


def original(cell: str) -> str:
    """Returns the text of a cell of a `CSVTable`, without the apostrophe in front of texts that look like formulas."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


class Table(Protocol):
    """A table that is written row by row; a row maps each column to a value."""

    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def table(option: str, path: Path, columns: Mapping[str, type]) -> Table:
    """Opens a table whose format follows from the file's suffix: .csv, .jsonl or .parquet.

    Args:
        option: the command-line option, for messages.
        path: the file.
        columns: name of each column -> its type: str, float, int or list (of numbers).

    Raises:
        UserError: the suffix is unknown, the file cannot be written, or pyarrow is missing for .parquet.
    """
    kinds: dict[str, Callable[[Path, Mapping[str, type]], Table]]
    kinds = {".csv": CSVTable, ".jsonl": JSONLTable, ".parquet": ParquetTable}
    if path.suffix.lower() not in kinds:
        raise UserError(f"{option} {path}: choose a name that ends in {', '.join(TABLES)}")
    return kinds[path.suffix.lower()](writable(option, path), columns)


class CSVTable:
    """A table in CSV with a header; a row is in the file when `write` returns.

    Lists are JSON in a cell. Text that a spreadsheet program would run as a formula (it begins with = + - @, a tab or a
    carriage return) gets an apostrophe in front; bytes of a file name that are no UTF-8 are written as `\\udcNN`.
    """

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        self.columns = list(columns)
        self.rows = csv.writer(self.file)
        self.rows.writerow(self.columns)
        self.file.flush()

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.writerow([self._cell(row.get(name)) for name in self.columns])
        self.file.flush()

    @staticmethod
    def _cell(value: Any) -> Any:
        if isinstance(value, str):
            return f"'{value}" if value.startswith(_FORMULA) else value
        return json.dumps(value) if isinstance(value, Sequence) else value

    def close(self) -> None:
        self.file.close()


class JSONLTable:
    """A table with one JSON object per line; a row is in the file when `write` returns."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.columns = list(columns)

    def write(self, row: Mapping[str, Any]) -> None:
        self.file.write(json.dumps({name: row.get(name) for name in self.columns}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class ParquetTable:
    """A Parquet table; `close` writes all rows. It needs pyarrow."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.schema, self.path = parquet_schema(columns), path
        self.rows: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def close(self) -> None:
        with self.path.open("wb") as file:
            write_parquet(file, self.rows, self.schema)


def parquet_schema(columns: Mapping[str, type]) -> Any:
    """The schema of a Parquet table; see `table` for the columns.

    Raises:
        UserError: pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401 - so that a missing package is noticed before the work
    except ImportError as error:
        raise UserError('a Parquet table needs pyarrow: pip install "adafocus[parquet]"') from error
    kinds = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    numbers = pyarrow.list_(pyarrow.float64())
    return pyarrow.schema([(name, kinds.get(kind, numbers)) for name, kind in columns.items()])


def parquet_table(rows: Sequence[Mapping[str, Any]], schema: Any) -> Any:
    """Rows as a pyarrow table. Bytes of a file name that are no UTF-8 become escapes such as `\\udcff`."""
    import pyarrow

    def whole(value: Any) -> Any:
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    return pyarrow.Table.from_pylist([{name: whole(row.get(name)) for name in schema.names} for row in rows], schema)


def write_parquet(file: Any, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    """Writes rows as a Parquet file."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(parquet_table(rows, schema), file)
