"""Compares the time of this package's video reader, which inspects packets to guarantee the right frames, with plain
decord on the same files.

python benchmarks/reading.py FOLDER_OF_MP4 [--frames 8]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import decord
import numpy as np

from adafocus.data.video import open_video


def ours(path: Path, frames: int) -> None:
    with open_video(path) as video:
        video.read(np.linspace(0, video.num_frames - 1, frames).astype(int))


def plain(path: Path, frames: int) -> None:
    reader = decord.VideoReader(str(path), num_threads=1)
    reader.get_batch(np.linspace(0, len(reader) - 1, frames).astype(int).tolist()).asnumpy()


def in_order(path: Path, frames: int) -> None:
    with open_video(path, "pyav") as video:
        video.read(np.linspace(0, video.num_frames - 1, frames).astype(int))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--files", type=int, default=20)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("*.mp4"))[: options.files]
    times: dict[str, list[float]] = {"ours": [], "plain decord": [], "in order": []}
    for path in files:
        for name, read in (("ours", ours), ("plain decord", plain), ("in order", in_order)):
            started = time.process_time()
            read(path, options.frames)
            times[name].append(1000 * (time.process_time() - started))
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["plain decord"], strict=True))
        sys.stdout.write(
            f"{name}: median {statistics.median(values):.1f} ms of CPU a clip, {ratio:.2f} of plain decord\n"
        )


if __name__ == "__main__":
    main()
