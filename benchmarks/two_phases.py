"""Compares two ways of decoding for Uni-AdaFocus: glance frames and then the chosen ones, or all candidates at once.

python benchmarks/two_phases.py VIDEOS [--glance 16] [--focus 16] [--size 224] [--clips 24]
                                [--template image_{:05d}.jpg]

VIDEOS is a folder of video files or, with --template, of frame folders. Frames are chosen at
random, because only decoding is measured. The time of opening a file twice is included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from adafocus.core.frames import segment_centers
from adafocus.data.annotations import VIDEO_SUFFIXES, Record
from adafocus.data.dataset import EVALUATION, VideoClips
from adafocus.data.view import View

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--glance", type=int, default=16)
    parser.add_argument("--focus", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--template")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.template:
        paths = sorted(path for path in options.videos.rglob("*") if path.is_dir())[: options.clips]
    else:
        paths = sorted(p for p in options.videos.rglob("*") if p.suffix in VIDEO_SUFFIXES)[: options.clips]
    records = [Record(str(path.relative_to(options.videos)), (0,)) for path in paths]
    candidates = 3 * options.focus
    side = {"segments": options.glance, "size": options.size, "short_side": options.size * 256 // 224}
    first = tuple(segment_centers(candidates, options.glance))
    lazy = View(**side, evaluation_rule="fractional", candidates=candidates, first=first)
    every = View(**{**side, "segments": candidates}, evaluation_rule="fractional")
    shared = {"root": options.videos, "seed": 0, "template": options.template}
    two, one = VideoClips(records, view=lazy, **shared), VideoClips(records, view=every, **shared)
    rng = np.random.default_rng(0)
    chosen = [np.sort(rng.permutation(candidates)[: options.focus]) for _ in records]

    def both_phases(index: int) -> None:
        if two[EVALUATION, index].kept is None:
            two.choose(index, chosen[index])

    ways: dict[str, Callable[[int], object]] = {
        "all candidates": lambda index: one[EVALUATION, index],
        "two phases": both_phases,
        "glance only (leaves early)": lambda index: two[EVALUATION, index],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, read in ways.items():
            started = time.process_time()
            for index in range(len(records)):
                read(index)
            seconds[name].append((time.process_time() - started) / len(records))
    base = statistics.median(seconds["all candidates"])
    for name, values in seconds.items():
        own = statistics.median(values)
        sys.stdout.write(f"{name}: {1000 * own:.1f} ms of CPU a video ({own / base:.2f} of all candidates)\n")


if __name__ == "__main__":
    main()
