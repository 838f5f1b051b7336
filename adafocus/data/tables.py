"""CSV tables of videos with a header: `path,label[,group][,split]`, where labels are class names or numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adafocus.core.errors import UserError
from adafocus.data.annotations import Record, Split
from adafocus.data.paths import below, printable, read_text

#: Accepted names of each split, for folders, lists and the split column, in upper or lower case.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def split_of(name: str) -> str | None:
    """Returns the split (train, val or test) that a name stands for; None for other names."""
    return next((split for split, names in SPLIT_NAMES.items() if name.strip().casefold() in names), None)


@dataclass(frozen=True)
class Row:
    """A row of a table, with its fields as text."""

    path: str
    label: str
    split: str | None
    group: str | None
    where: str


@dataclass
class Table:
    """The rows of a table, and the names of its columns."""

    path: Path
    columns: list[str]
    rows: list[Row] = field(default_factory=list)

    def records(self, classes: Sequence[str], named: bool, split: str | None = None) -> Split:
        """Makes a `Split` of the rows of one split, or of all; `named`: whether labels are class names, not numbers."""
        numbers = {name: number for number, name in enumerate(classes)}
        records = []
        for row in self.rows:
            if split is not None and row.split != split:
                continue
            number = numbers.get(row.label) if named else _number(row.label, len(classes))
            if number is None:
                limit = f"none of the {len(classes)} classes ({', '.join(map(printable, classes[:5]))}, ...)"
                raise UserError(f"{row.where}: the label {printable(row.label)[:60]!r} is {limit}")
            records.append(Record(row.path, (number,), group=row.group))
        return Split(records, listed=len(records))


def _number(label: str, limit: int) -> int | None:
    return int(label) if label.isascii() and label.isdecimal() and len(label) < 10 and int(label) < limit else None


def read_table(path: Path, videos: Path | None = None, group: str | None = None) -> Table | None:
    """Reads a table whose header has the columns path and label; None for any other file.

    Args:
        path: the file; its fields are separated by commas, semicolons or tabs.
        videos: the folder of the videos; absolute paths inside it are allowed.
        group: name of the column that becomes `Row.group`, if the table has it.

    Raises:
        UserError: a row cannot be read; the message names the line.
    """
    text = read_text(path, names_of_files=True)
    head = text.split("\n", 1)[0].strip()
    for separator in ",;\t":
        columns = [part.strip().strip('"').strip() for part in head.split(separator)]
        names = [column.casefold() for column in columns]
        if "path" in names and "label" in names:
            break
    else:
        return None
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{path}, line 1: there are two columns {twice[0]!r}; remove one")
    at: dict[str, int] = {name: names.index(name) for name in ("path", "label", "split") if name in names}
    place = columns.index(group) if group in columns else None
    table = Table(path, columns)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        next(reader)
        for fields in reader:
            if any(part.strip() for part in fields):
                table.rows.append(_row(fields, at, place, len(columns), f"{path}, line {reader.line_num}", videos))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a valid CSV row ({error}); correct it") from error
    if not table.rows:
        raise UserError(f"{path} has no rows below its header; add a row per video")
    return table


def _row(
    fields: list[str], at: dict[str, int], group: int | None, columns: int, where: str, videos: Path | None
) -> Row:
    if len(fields) != columns:
        raise UserError(f"{where}: {len(fields)} fields, the header has {columns}; put a field with a comma in quotes")
    fields = [part.strip() for part in fields]
    path, label = fields[at["path"]], printable(fields[at["label"]])
    if not path or not label:
        raise UserError(f"{where}: no {'label' if path else 'path'}")
    split = None
    if "split" in at and (split := split_of(fields[at["split"]])) is None:
        raise UserError(f"{where}: split {printable(fields[at['split']])[:40]!r} is unknown; choose train, val or test")
    return Row(below(path, where, videos), label, split, None if group is None else fields[group], where)


def classes_of(tables: Sequence[Table]) -> list[str]:
    """Returns the classes that the labels of tables name, sorted; numerically if all labels are numbers."""
    labels = {row.label for table in tables for row in table.rows}
    if all(label.isascii() and label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label) if len(label) < 19 else 2**63, label))
    return sorted(labels)


def labels_are_names(tables: Sequence[Table], classes: Sequence[str]) -> bool:
    """Returns whether the labels are class names from `classes`; otherwise they are class ids."""
    known = set(classes)
    return all(row.label in known for table in tables for row in table.rows) or not all(
        row.label.isdecimal() for table in tables for row in table.rows
    )
