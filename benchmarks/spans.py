"""Spans in long videos: `adafocus predict --spans` against dense windows of the whole network.

python benchmarks/spans.py prepare GESTURES windows        # training windows, cut out of joined training clips
adafocus run ...                                           # the command is printed
python benchmarks/spans.py measure outputs/spans GESTURES  # F1 and multiply-adds on joined evaluation clips
python benchmarks/spans.py hours outputs/spans GESTURES    # memory on a video of 30 minutes

GESTURES has train.txt and val.txt (rows `path num_frames label`) and classes.txt. The joins are drawn and are not kept.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joins import RATE, Part, cut_windows, join, read_list, write_join

import adafocus
from adafocus.data.stream import write_video
from adafocus.spans.finder import Finder, Found
from adafocus.spans.timeline import Span

NOTHING = "nothing"
COMMAND = """adafocus run experiment=small_uni dataset.root={root} name=spans backbone.glance_size=32 \\
    schedule.epochs=14 schedule.evaluate_every=14 schedule.warmup_epochs=2 dataset.cache_megabytes=2000"""


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


@dataclass
class Score:
    """Counts of spans: found and right, found, and there."""

    right: int = 0
    found: int = 0
    there: int = 0

    @property
    def f1(self) -> float:
        return 100 * 2 * self.right / max(1, self.found + self.there)


def score(spans: list[Span], parts: list[Part], least: float = 0.5) -> Score:
    """Matches spans with the clips of their class, the surest first; each clip can be found once.

    A span is right if its intersection with the clip is at least `least` of their union.
    """
    left = list(parts)
    found = Score(found=len(spans), there=len(parts))
    for span in sorted(spans, key=lambda span: -span.confidence):
        for part in left:
            first, last = part.first / RATE, part.last / RATE
            shared = min(span.end, last) - max(span.start, first)
            union = max(span.end, last) - min(span.start, first)
            if part.label == span.label and shared >= least * union:
                left.remove(part)
                found.right += 1
                break
    return found


def nothing(predictor: adafocus.Predictor) -> tuple[str, ...]:
    """The class of pauses, if the network was trained on windows of `prepare`."""
    return (NOTHING,) if NOTHING in predictor.classes else ()


def measure(options: argparse.Namespace) -> None:
    """Prints F1 and multiply-adds of several thresholds, on several joins."""
    predictor = adafocus.load(options.run, device="cpu")
    clips = read_list(options.folder, "val.txt")
    rows: dict[float, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.joins):
            rng = np.random.default_rng([options.seed, number])
            some = [clips[place] for place in rng.permutation(len(clips))[: options.clips]]
            video = Path(folder) / f"{number}.mp4"
            parts = write_join(video, some, (options.pause[0], options.pause[1]), rng, options.side)
            for below in options.focus_below:
                finder = Finder(predictor, background=nothing(predictor), window=options.window, focus_below=below)
                found = Found()
                got = score(list(finder.find(video, found)), parts)
                share = 100 * found.cost / found.dense_cost
                rows.setdefault(below, []).append((got.f1, share, 100 * found.focused / found.windows))
                busy = sum(part.last - part.first for part in parts) / found.frames
                sys.stdout.write(
                    f"join {number}: {found.seconds:.0f} s, {100 * busy:.0f} % of it clips; focus below {below:g}: "
                    f"F1 {got.f1:.1f}, {share:.1f} % of the multiply-adds, {got.right} of {got.there} right, "
                    f"{got.found} found\n"
                )
                sys.stdout.flush()
    dense = np.array(rows[max(rows)])
    sys.stdout.write(
        "| focus below | F1 at IoU 0.5, mean | less dense windows, by join | multiply-adds | focused on |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    for below, values in rows.items():
        table = np.array(values)
        less = ", ".join(f"{value:+.1f}" for value in table[:, 0] - dense[:, 0])
        f1, share, focused = table.mean(0)
        sys.stdout.write(f"| {below:g} | {f1:.1f} | {less} | {share:.1f} % | {focused:.0f} % of the windows |\n")


def hours(options: argparse.Namespace) -> None:
    """Prints memory and time on a long video."""
    predictor = adafocus.load(options.run, device="cpu")
    clips = read_list(options.folder, "val.txt")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (options.minutes / 10, options.minutes):
            rng, video = np.random.default_rng(options.seed), Path(folder) / "long.mp4"
            count = round(minutes * 60 / (3.3 + sum(options.pause) / 2))
            chosen = [clips[place] for place in rng.integers(0, len(clips), count)]
            parts = write_join(video, chosen, (options.pause[0], options.pause[1]), rng, options.side)
            found, started = Found(), time.perf_counter()
            finder = Finder(predictor, background=nothing(predictor), window=options.window)
            got = score(list(finder.find(video, found)), parts)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            sys.stdout.write(
                f"{found.seconds / 60:.1f} min: {found.held} frames held at most, peak memory of the process "
                f"{peak:.0f} MB, {time.perf_counter() - started:.0f} s, F1 {got.f1:.1f}, "
                f"{100 * found.cost / found.dense_cost:.1f} % of the multiply-adds\n"
            )
            sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for work, first, second in ((prepare, "folder", "out"), (measure, "run", "folder"), (hours, "run", "folder")):
        command = commands.add_parser(work.__name__)
        command.set_defaults(work=work)
        command.add_argument(first, type=Path)
        command.add_argument(second, type=Path)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--window", type=float, default=3.0, help="length of a window in seconds (default 3)")
        command.add_argument("--side", type=int, default=72, help="shorter side of joined videos in pixels")
        command.add_argument(
            "--pause", type=float, nargs=2, default=(2.0, 8.0), help="shortest and longest, in seconds"
        )
        if work is prepare:
            command.add_argument("--each", type=int, default=3, help="windows of every training clip")
        if work is measure:
            command.add_argument("--joins", type=int, default=5)
            command.add_argument("--clips", type=int, default=20, help="clips of a join (default 20)")
            command.add_argument("--focus-below", type=float, nargs="+", default=[0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 2.0])
        if work is hours:
            command.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
