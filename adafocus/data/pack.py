"""`adafocus prepare shard`: packs the videos of a folder into shards, see `shards.py`."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adafocus.core.errors import UserError
from adafocus.core.files import unwritable, write_bytes, write_json
from adafocus.data.annotations import MAX_LABELS, Record
from adafocus.data.packets import VideoError
from adafocus.data.paths import encode
from adafocus.data.processes import in_processes
from adafocus.data.shards import INDEX, NAMES, ROW, SHARDS, index_content
from adafocus.data.splits import Where, find
from adafocus.data.video import check_file, inspect_video


@dataclass(frozen=True)
class Packed:
    """What was packed: numbers of videos and shards, and path -> reason of what cannot be read."""

    videos: int
    shards: int
    bad: dict[str, str]


def pack(
    where: Where,
    out: Path,
    *,
    shard_bytes: int = 2**30,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Packs all videos of a data set. What was interrupted continues: finished shards stay as they are.

    Unreadable and missing videos are noted in the index, so that evaluation counts them as it does in the folder.

    Args:
        where: the data set.
        out: folder of the shards.
        shard_bytes: a shard is finished when it is this large.
        workers: number of processes that inspect the videos.
        timeout: seconds for the inspection of one.
        progress: called with (done, all) of the videos.

    Raises:
        UserError: there is no such data set, or a shard cannot be written.
    """
    found = find(where)
    records: list[Record] = []
    splits: dict[str, tuple[int, int]] = {}
    for name, split in found.splits.items():
        splits[name] = (len(records), len(records) + len(split.records))
        records += split.records
    paths = list(dict.fromkeys(record.path for record in records))
    sizes, bad = _inspected(paths, where.videos, workers, timeout, progress)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SHARDS).unlink(missing_ok=True)  # there is no index until all shards fit it
        places: dict[str, tuple[int, int, int]] = {}
        shards = []
        for number, members in enumerate(_divided(paths, sizes, shard_bytes)):
            shard = out / f"shard-{number:05d}.tar"
            places |= {path: (number, *place) for path, place in _shard(shard, members, where.videos, sizes).items()}
            shards.append((shard.name, shard.stat().st_size))
    except OSError as error:
        raise unwritable(out, error) from error
    rows, names = np.zeros(len(records), ROW), bytearray()
    for row, record in enumerate(records):
        names += encode(record.path)
        labels = [*record.labels, *[-1] * (MAX_LABELS - len(record.labels))]
        rows[row] = (*places.get(record.path, (0, 0, 0)), len(names), labels)
    write_bytes(out / INDEX, lambda file: file.write(_npy(rows)))
    write_bytes(out / NAMES, lambda file: file.write(_npy(np.frombuffer(bytes(names), np.uint8))))
    reasons = {row: bad[record.path] for row, record in enumerate(records) if record.path in bad}
    write_json(out / SHARDS, index_content(found.classes, splits, shards, reasons, found.classes_below))
    return Packed(len(records), len(shards), bad)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _inspected(
    paths: list[str], root: Path, workers: int, timeout: float, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes of the files that exist, and reasons of those that cannot be read."""
    sizes, bad = {}, {}
    for path in paths:
        try:
            check_file(root / path)
            sizes[path] = (root / path).stat().st_size
        except (VideoError, OSError) as error:
            bad[path] = str(error).removeprefix(f"{root / path}: ")
            if (root / path).is_file():  # empty
                sizes[path] = 0
    there = [path for path in paths if path not in bad]
    outcomes = in_processes(inspect_video, [root / path for path in there], workers, timeout)
    for done, outcome in enumerate(outcomes, start=1):
        if outcome.reason and not outcome.late:
            bad[there[outcome.number]] = outcome.reason.removeprefix(f"{root / there[outcome.number]}: ")
        if progress is not None:
            progress(done, len(there))
    return sizes, bad


def _divided(paths: list[str], sizes: dict[str, int], limit: int) -> list[list[str]]:
    """The paths of each shard, as a function of their order and sizes."""
    parts: list[list[str]] = []
    used = limit
    for path in paths:
        if not sizes.get(path):
            continue
        if used >= limit:
            parts.append([])
            used = 0
        parts[-1].append(path)
        used += sizes[path]
    return parts


def _shard(shard: Path, members: list[str], root: Path, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Start and size of each member of a shard, which is written unless an earlier call has done so."""
    wanted = {path: sizes[path] for path in members}
    found = _members(shard) if shard.is_file() else {}
    if {path: size for path, (_, size) in found.items()} == wanted:
        return found

    part = shard.with_name(f"{shard.name}.part")
    with open(part, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in members:
                entry = tarfile.TarInfo(path)
                with open(root / path, "rb") as video:
                    entry.size, entry.mtime = sizes[path], int(os.fstat(video.fileno()).st_mtime)
                    tar.addfile(entry, video)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, shard)
    found = _members(shard)
    if {path: size for path, (_, size) in found.items()} != wanted:
        raise UserError(f"{shard} does not hold what was written to it; did videos change in the meantime?")
    return found


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    """Start and size of the members of a tar file; none if it is damaged."""
    try:
        with tarfile.open(shard, "r:", errors="surrogateescape") as tar:
            return {entry.name: (entry.offset_data, entry.size) for entry in tar}
    except tarfile.TarError:
        return {}
