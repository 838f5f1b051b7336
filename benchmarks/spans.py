"""Spans in long videos: F1 and multiply-adds of `adafocus predict --spans` against dense windows of the whole network.

python benchmarks/spans.py prepare GESTURES windows                  # training windows, cut out of joined training clips
adafocus run dataset=folder dataset.root=windows ...                 # the command is printed
python benchmarks/spans.py measure outputs/RUN GESTURES --joins 5    # on joined evaluation clips

GESTURES has train.txt and val.txt (rows `path num_frames label`) and classes.txt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from joins import cut_windows, join, read_list

from adafocus.data.stream import write_video

NOTHING = "nothing"
COMMAND = """adafocus run experiment=small_uni dataset.root={root} name=spans backbone.glance_size=32 \\
    schedule.epochs=25 schedule.evaluate_every=25 dataset.cache_megabytes=2000 loader.workers=0"""


def prepare(options: argparse.Namespace) -> None:
    """Writes windows of joined clips as a folder of classes."""
    rng = np.random.default_rng(options.seed)
    for split, each in (("train", options.each), ("val", 1)):
        clips = read_list(options.folder, f"{split}.txt")
        rng.shuffle(clips)
        number = 0
        for some in range(0, len(clips), 10):  # ten clips at a time are in memory
            joined = list(join(clips[some : some + 10], (0.5, 4.0), rng, options.side))
            for frames, label in cut_windows(joined, options.window, rng, each, NOTHING):
                out = options.out / split / label / f"{number:05}.mp4"
                out.parent.mkdir(parents=True, exist_ok=True)
                write_video(out, frames)
                number += 1
        sys.stdout.write(f"{split}: {number} windows of {options.window:g} s\n")
    sys.stdout.write(COMMAND.format(root=options.out) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=float, default=3.0, help="length of a window in seconds (default 3)")
    parser.add_argument("--side", type=int, default=72, help="shorter side of joined videos in pixels")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("prepare")
    one.add_argument("folder", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--each", type=int, default=3, help="windows of every training clip")
    one.set_defaults(work=prepare)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
