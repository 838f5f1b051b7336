"""What is in a data set behind an address: its index of shards, its lists, or its class folders."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from adafocus.core.errors import UserError
from adafocus.core.files import first_line
from adafocus.data.folders import is_video
from adafocus.data.packets import VideoError
from adafocus.data.paths import encode, printable
from adafocus.data.remote import RemoteFiles, check_address, file_system
from adafocus.data.shards import INDEX, NAMES, SHARDS
from adafocus.data.tables import SPLIT_NAMES, split_of


@contextmanager
def fetched_lists(address: str, files: RemoteFiles, named: list[str]) -> Iterator[Path]:
    """A temporary folder with what `adafocus.data.splits.find` or `read_index` needs of a data set behind an address.

    It has the index of shards; or else the lists that are there, under the usual names or those that are configured;
    or else a table of the videos in class folders, where the file system can list them.

    Args:
        address: the folder of the data set.
        files: reads files.
        named: names of lists and class files that are configured.

    Raises:
        UserError: there is nothing of these, or the address is not allowed.
    """
    try:
        check_address(address)
    except VideoError as error:
        raise UserError(error) from error
    address = address.rstrip("/")
    with TemporaryDirectory(prefix="adafocus-") as temporary:
        folder = Path(temporary)
        if _fetch(address, SHARDS, folder, files):
            for name in (INDEX, NAMES):
                if not _fetch(address, name, folder, files):
                    raise UserError(f"{address} holds {SHARDS} but no {name}; copy the whole folder of shards")
        elif not _fetch_lists(address, folder, files, named):
            _list_folders(address, folder)
        yield folder


def _fetch(address: str, name: str, folder: Path, files: RemoteFiles) -> bool:
    """Copies a file into the folder; False if there is none."""
    try:
        data = files.fresh(f"{address}/{name}")
    except FileNotFoundError:
        return False
    except VideoError as error:
        raise UserError(error) from error
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _fetch_lists(address: str, folder: Path, files: RemoteFiles, named: list[str]) -> bool:
    usual = [f"{names[0]}.{suffix}" for names in SPLIT_NAMES.values() for suffix in ("txt", "csv")]
    for name in named:
        if not _fetch(address, name, folder, files):
            raise UserError(f"{address} holds no {name}, which the configuration names")
    found = [name for name in usual if _fetch(address, name, folder, files)]
    if found or named:
        _fetch(address, "classes.txt", folder, files)
    return bool(found or named)


def _list_folders(address: str, folder: Path) -> None:
    """Writes a table of the videos in `[SPLIT/]CLASS/...`, with the classes in the order that folders would have."""
    try:
        system, root = file_system(address)
        names = system.find(root)
    except Exception as error:  # every file system has its own exceptions
        raise UserError(f"{address} holds no lists and cannot be listed ({first_line(error)})") from error
    rows = []
    for name in sorted(names):
        parts = name.removeprefix(root.rstrip("/")).strip("/").split("/")
        split = split_of(parts[0])
        at = 0 if split is None else 1
        if is_video(parts[-1]) and len(parts) > at + 1 and not parts[at].startswith("."):
            rows.append(("/".join(parts), printable(parts[at]), split or "train"))
    if not rows:
        raise UserError(
            f"{address} holds neither {SHARDS} nor train.txt or train.csv, and no videos in class folders were listed"
        )
    with open(folder / "train.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    classes = sorted({label for _, label, split in rows if split == "train"} or {label for _, label, _ in rows})
    (folder / "classes.txt").write_bytes(encode("".join(f"{name}\n" for name in classes)))
