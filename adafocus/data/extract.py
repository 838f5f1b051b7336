"""Videos to folders of JPEG frames, in parallel, with a restart that does nothing twice."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from adafocus.data.video import VideoError, open_video

QUALITY = 90


@dataclass
class Extracted:
    """What became of one video: the frames in its folder, or why there are none."""

    folder: str
    frames: int
    reason: str = ""


def extract_frames(
    video: Path, folder: Path, *, template: str = "img_{:05d}.jpg", short_side: int | None = 256, quality: int = QUALITY
) -> int:
    """Writes every frame of a video, in order, and returns their number.

    Frames go into a folder of another name first, so a folder of the right name is always whole. Numbers start at 1.

    Args:
        short_side: frames are reduced (never enlarged) to this, 4:2:0 JPEG of this quality; None: as stored. The seeds
            scale the height (331 for Kinetics, 256 for Something-Something V2), which only differs for portrait videos
            and stores more than any of their networks reads.

    Raises:
        VideoError: it cannot be decoded to its end; nothing is left behind.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        count = 0
        with open_video(video, "pyav") as opened:
            for count, image in enumerate(opened.pictures(short_side), start=1):
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420")
                (part / template.format(count)).write_bytes(data)
        part.rename(folder)
        return count
    finally:
        shutil.rmtree(part, ignore_errors=True)


def extract_all(
    jobs: Sequence[tuple[Path, str]],
    root: Path,
    *,
    template: str,
    short_side: int | None = 256,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Extracted]:
    """Extracts (video, folder below root) pairs; folders that are there are counted and left alone."""
    results: list[Extracted] = []
    waiting = []
    for video, folder in jobs:
        done = count_frames(root / folder, template)
        if done:
            results.append(Extracted(folder, done))
        else:
            waiting.append((video, folder))
    if progress is not None:
        progress(len(results), len(jobs))
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    with ProcessPoolExecutor(max(1, workers), mp_context=context) as pool:
        running = {pool.submit(_one, v, root / f, template, short_side): f for v, f in waiting}
        for future in as_completed(running):
            frames, reason = future.result()
            results.append(Extracted(running[future], frames, reason))
            if progress is not None:
                progress(len(results), len(jobs))
    return results


def _one(video: Path, folder: Path, template: str, short_side: int | None) -> tuple[int, str]:
    try:
        return extract_frames(video, folder, template=template, short_side=short_side), ""
    except VideoError as error:
        return 0, str(error)
    except OSError as error:
        return 0, f"{folder}: cannot be written ({error})"


def count_frames(folder: Path, template: str) -> int:
    """Frames 1..n of a folder without a gap, found by bisection over their names; 0 where there is none."""
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
    """(frames, reason): the frames of a video file, or why there are none."""
    try:
        with open_video(path) as video:
            return video.num_frames, ""
    except VideoError as error:
        return 0, str(error)
