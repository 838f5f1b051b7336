"""Reads which videos a job is about: from a folder, a list, a CSV or a Parquet table, here or behind an address."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adafocus.core.errors import UserError, printable
from adafocus.core.files import first_line, is_address
from adafocus.data.folders import VIDEO_SUFFIXES, find_videos
from adafocus.data.packets import VideoError
from adafocus.data.paths import below, read_text
from adafocus.data.remote import RemoteFiles, check_address, file_system

TABLES = (".txt", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Videos:
    """The videos of a job.

    Attributes:
        paths: path or address by id, as the input gives it.
        root: what paths start from and may not leave; None for videos that were typed.
        repeated: number of rows whose video has been named before; they are left out.
    """

    paths: dict[str, str]
    root: str | None
    repeated: int = 0


def located(path: Any, root: str | None) -> str:
    """The file or address that a path in a table means.

    Args:
        path: a path, absolute or relative to the root, or an address.
        root: a folder or an address; None: the path was typed by the user.

    Raises:
        VideoError: it leads out of the root, or is no path. Addresses need no root, but an allowed protocol.
    """
    if not isinstance(path, str) or not path:
        raise VideoError(f"{path!r} is no path")
    if is_address(path):
        return check_address(path)
    if root is None:
        return path
    if is_address(root):
        return f"{root.rstrip('/')}/{_below(path, None)}"
    return os.path.join(root, _below(path, Path(root)))


def _below(path: str, root: Path | None) -> str:
    try:
        return below(path, "the table", root)
    except UserError as error:
        raise VideoError(f"{error} (--root FOLDER says where paths may lead)") from error


def find_inputs(source: str, *, column: str = "path", root: str | None = None, template: str) -> Videos:
    """The videos that a command-line argument names.

    Args:
        source: a folder, an address of one, a list or table (see `TABLES`), or a video.
        column: the column of a table that holds the paths. The column `id`, if there is one, holds the ids.
        root: see `located`; None: the folder of the list or table.
        template: file names of frames, for folders that are videos themselves.

    Raises:
        UserError: there is no such thing, or nothing in it.
    """
    suffix = os.path.splitext(source)[1].lower()
    if suffix in TABLES and not os.path.isdir(source):
        values, ids = _table(source, suffix, column)
        if root is None:
            root = source.rpartition("/")[0] if is_address(source) else os.path.dirname(os.path.abspath(source))
        return _identified(values, ids, root if is_address(root) else os.path.abspath(root))
    if root is not None:
        raise UserError(f"--root is for the paths in a list or table ({', '.join(TABLES)}), and {source} is none")
    if is_address(source):
        return _identified(_listed(source), None, None)
    return _identified(find_videos([os.path.abspath(source)], template), None, None)


def _listed(address: str) -> list[str]:
    """The videos below an address, or itself."""
    if os.path.splitext(address)[1].lower() in VIDEO_SUFFIXES:
        return [address]
    try:
        system, path = file_system(address)
        names = system.find(path)
    except Exception as error:  # every file system has its own exceptions
        raise UserError(f"{address} cannot be listed ({first_line(error)})") from error
    found = [name for name in names if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    if not found:
        raise UserError(f"{address} has no video ({' '.join(sorted(VIDEO_SUFFIXES))}), or cannot be listed")
    return sorted(system.unstrip_protocol(name) for name in found)


def _table(source: str, suffix: str, column: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
    """The paths in a list or table, and its ids if it has any."""
    if not is_address(source):
        return _local_table(Path(source).expanduser(), suffix, column)
    with TemporaryDirectory() as place:
        copy = Path(place) / f"table{suffix}"
        try:
            copy.write_bytes(RemoteFiles(timeout=300.0).read(source))
        except VideoError as error:
            raise UserError(error) from error
        return _local_table(copy, suffix, column)


def _local_table(path: Path, suffix: str, column: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
    if suffix == ".txt":
        return [line for line in read_text(path, names_of_files=True).splitlines() if line.strip()], None
    if suffix == ".parquet":
        return _parquet(path, column)
    rows = csv.reader(io.StringIO(read_text(path, names_of_files=True)), delimiter="\t" if suffix == ".tsv" else ",")
    try:
        names = next(rows, [])
        at = _place(path, names, column)
        number = names.index("id") if "id" in names else None
        found = [row for row in rows if row]
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from error
    paths = [row[at] if at < len(row) else "" for row in found]
    return paths, None if number is None else [row[number] if number < len(row) else "" for row in found]


def _parquet(path: Path, column: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f'{path} needs pyarrow: pip install "adafocus[parquet]"') from error
    try:
        names = parquet.read_schema(path).names
        _place(path, names, column)
        found = parquet.read_table(path, columns=[column, *(["id"] if "id" in names else [])], use_threads=False)
        values = {name: found[name].to_pylist() for name in found.column_names}
    except (OSError, ValueError) as error:  # pyarrow's own exceptions are among them
        raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    return values[column], values.get("id")


def _place(path: Path, names: Sequence[str], column: str) -> int:
    if column not in names:
        raise UserError(f"{path} has no column {column!r}; it has {', '.join(map(printable, names))}: set --column")
    return names.index(column)


def _identified(values: Iterable[Any], ids: Sequence[Any] | None, root: str | None) -> Videos:
    """Gives every video an id: of its table, or a hash of where it is, which does not depend on the other rows."""
    paths: dict[str, str] = {}
    repeated, outside, first = 0, 0, ""
    for number, value in enumerate(values):
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        text = "" if text is None or (isinstance(text, float) and math.isnan(text)) else str(text)
        try:
            key = located(text, root)
        except VideoError as error:
            outside, first = outside + 1, first or str(error)
            key = f"{root}\0{text or number}"
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if ids is not None:
            name = "" if ids[number] is None else str(ids[number])
            if not name or name in paths:
                problem = "has no id" if not name else f"has the id {printable(name)!r} of an earlier row"
                raise UserError(f"row {number + 1} {problem}; ids must be unique")
        elif name in paths:
            repeated += 1
            continue
        paths[name] = text
    if not paths:
        raise UserError("the list or table names no video")
    if outside == len(paths):
        raise UserError(f"no path can be read; the first: {first}")
    return Videos(paths, root, repeated)
