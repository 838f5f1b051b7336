"""Extracts videos to folders of JPEG frames, in parallel; repeating an interrupted extraction continues it."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from adafocus.data.paths import inside
from adafocus.data.video import VideoError, open_video

QUALITY = 90
STAGING = ".extracting-"  # prefix of the names of folders with unfinished frames
_LOCK = "adafocus.lock"


@dataclass
class Extracted:
    """Result for one video: the number of frames in its folder, or the reason why there are none."""

    folder: str
    frames: int
    reason: str = ""


def extract_frames(
    video: Path,
    folder: Path,
    *,
    template: str = "img_{:05d}.jpg",
    short_side: int | None = 256,
    quality: int = QUALITY,
    staging: Path | None = None,
) -> int:
    """Writes every frame of a video, in order, and returns their number.

    Frames are first written to a temporary folder, so a folder with the final name is always complete. Numbers start at
    1.

    Args:
        video, folder, template: the video, the folder for its frames, and the pattern of their file names.
        short_side: frames are reduced (never enlarged) to this shorter side; None: as stored. TSM's tools scale the
            height instead (331 for Kinetics, 256 for Something-Something V2), which differs for portrait videos.
        quality: JPEG quality (with 4:2:0 chroma subsampling).
        staging: where the temporary folder is created, on the same disk; None: next to `folder`.

    Raises:
        VideoError: the video cannot be decoded to its end; no frames are left then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=STAGING, dir=staging or folder.parent))
    part = own / "frames"  # tempfile's folder has mode 700, a folder inside it has the usual permissions
    part.mkdir()
    try:
        count = 0
        with open_video(video, "pyav") as opened:
            for count, image in enumerate(opened.pictures(short_side), start=1):
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420")
                (part / template.format(count)).write_bytes(data)
        part.rename(folder)
        return count
    finally:
        shutil.rmtree(own, ignore_errors=True)


def extract_all(
    jobs: Sequence[tuple[Path, str]],
    root: Path,
    *,
    template: str,
    short_side: int | None = 256,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Extracted]:
    """Extracts (video, folder below root) pairs; the frames of existing folders are only counted.

    A folder that leads out of `root`, for example through a link, is not written; its result has the reason.
    """
    results: list[Extracted] = []
    waiting = []
    for video, folder in jobs:
        if not inside(root / folder, root):
            results.append(Extracted(folder, 0, f"{folder}: leads out of {root}, nothing is written there"))
        elif done := count_frames(root / folder, template):
            results.append(Extracted(folder, done))
        else:
            waiting.append((video, folder))
    if waiting:
        root.mkdir(parents=True, exist_ok=True)
    if progress is not None:
        progress(len(results), len(jobs))
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    with _staging(root, bool(waiting)) as staging, ProcessPoolExecutor(max(1, workers), mp_context=context) as pool:
        running = {pool.submit(_one, v, root / f, template, short_side, staging): f for v, f in waiting}
        for future in as_completed(running):
            frames, reason = future.result()
            results.append(Extracted(running[future], frames, reason))
            if progress is not None:
                progress(len(results), len(jobs))
    return results


@contextmanager
def _staging(root: Path, wanted: bool) -> Iterator[Path | None]:
    """Makes a temporary folder for unfinished frames, as a context; at the end it is removed.

    Temporary folders of killed extractions are removed too: those whose lock file no process holds.
    """
    if not wanted:
        yield None
        return
    for old in root.glob(f"{STAGING}*/{_LOCK}"):
        if not old.parent.is_symlink() and not old.is_symlink() and old.is_file():
            with open(old, "rb") as file, suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old.parent, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=root))
    try:
        with open(staging / _LOCK, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _one(video: Path, folder: Path, template: str, short_side: int | None, staging: Path | None) -> tuple[int, str]:
    try:
        return extract_frames(video, folder, template=template, short_side=short_side, staging=staging), ""
    except VideoError as error:
        return 0, str(error)
    except OSError as error:
        return 0, f"{folder}: cannot be written ({error})"


def count_frames(folder: Path, template: str) -> int:
    """Returns the number n of frames in a folder, by bisection, assuming that the files 1..n exist without a gap."""
    if not (folder / template.format(1)).is_file():
        return 0
    low, high = 1, 2
    while (folder / template.format(high)).is_file():
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if (folder / template.format(middle)).is_file():
            low = middle
        else:
            high = middle
    return low


def count_video(path: Path) -> tuple[int, str]:
    """Returns (number of frames of a video file, ""), or (0, the reason why it cannot be read)."""
    try:
        with open_video(path) as video:
            return video.num_frames, ""
    except VideoError as error:
        return 0, str(error)
