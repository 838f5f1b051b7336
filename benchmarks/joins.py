"""Joins clips of a folder to long videos with pauses between them, for `benchmarks/spans.py`.

A pause shows the last frames of the clip before it and then, after a cut, the first frames of the clip after it, forth
and back, so that nothing but noise and small movements happens in it. Clips are brought to one rate by repeating or
leaving out frames. Where each clip begins and ends is known, as no recording would tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adafocus.data.stream import write_video
from adafocus.data.video import open_video

RATE = 25.0  # frames per second of everything that is written
STILL = 4  # number of frames that a pause shows forth and back


@dataclass(frozen=True)
class Part:
    """A stretch of a joined video: frames [first, last) hold the clip; `label` is its class."""

    label: str
    first: int
    last: int


def read_list(folder: Path, name: str) -> list[tuple[Path, str]]:
    """(path, class) of the clips in a list with rows `path num_frames label`, with the names of classes.txt."""
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split()
    rows = [line.rsplit(maxsplit=2) for line in (folder / name).read_text(encoding="utf-8").splitlines() if line]
    return [(folder / path, classes[int(label)]) for path, _, label in rows]


def clip(path: Path, side: int) -> np.ndarray:
    """All frames of a clip at `RATE`, 4:3 with a shorter side of `side` pixels, (T, side, W, 3) uint8."""
    with open_video(path) as video:
        count = max(2, round(video.num_frames * RATE / video.fps))
        frames = video.read(np.arange(count) * video.num_frames // count, side)
    width = side * 4 // 3
    place = np.arange(width) * frames.shape[2] // width  # clips of one video must have one size
    return frames[:, :, place]


def pause(before: np.ndarray | None, after: np.ndarray | None, seconds: float, cut: float) -> np.ndarray:
    """A pause; the share `cut` of it belongs to the clip before."""
    count = round(seconds * RATE)
    shares = (round(count * cut), count - round(count * cut))
    if before is None or after is None:
        shares = (0, count) if before is None else (count, 0)
    swing = np.r_[np.arange(STILL), np.arange(STILL - 2, 0, -1)]
    parts = []
    for frames, share, ends in ((before, shares[0], True), (after, shares[1], False)):
        if frames is not None and share:
            still = frames[-STILL:][::-1] if ends else frames[:STILL]
            order = np.resize(swing[swing < len(still)], share)
            parts.append(still[order if ends else order[::-1]])
    return np.concatenate(parts)


def join(
    clips: list[tuple[Path, str]], pauses: tuple[float, float], rng: np.random.Generator, side: int
) -> Iterator[tuple[np.ndarray, str | None]]:
    """Yields the stretches of a joined video: (frames, class), with the class None for a pause.

    Args:
        clips: the clips, in order.
        pauses: shortest and longest pause in seconds.
        rng: draws the pauses.
        side: shorter side in pixels.
    """
    before = None
    for path, label in clips:
        after = clip(path, side)
        yield pause(before, after, rng.uniform(*pauses), rng.uniform(0.2, 0.8)), None
        yield after, label
        before = after
    yield pause(before, None, rng.uniform(*pauses), 1.0), None


def write_join(
    out: Path,
    clips: list[tuple[Path, str]],
    pauses: tuple[float, float],
    rng: np.random.Generator,
    side: int,
) -> list[Part]:
    """Writes a joined video and returns where the clips are in it; only one stretch is in memory at a time."""
    parts: list[Part] = []
    count = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal count
        for stretch, label in join(clips, pauses, rng, side):
            if label is not None:
                parts.append(Part(label, count, count + len(stretch)))
            count += len(stretch)
            yield from stretch

    write_video(out, frames(), RATE)
    return parts


def cut_windows(
    joined: list[tuple[np.ndarray, str | None]], seconds: float, rng: np.random.Generator, each: int, nothing: str
) -> Iterator[tuple[np.ndarray, str]]:
    """Yields windows (frames, class) of a joined video as a network is to learn them.

    `each` windows are drawn of every clip, at random offsets, if the clip and the window share at least 60 % of the
    shorter of the two. As many as there are clips are drawn around the pauses, with less than a quarter of a clip in
    them; their class is `nothing`.
    """
    frames = np.concatenate([stretch for stretch, _ in joined])
    ends = np.cumsum([len(stretch) for stretch, _ in joined])
    size = min(round(seconds * RATE), len(frames))
    spans = [(int(end) - len(stretch), int(end), label) for end, (stretch, label) in zip(ends, joined, strict=True)]
    for first, last, label in spans:
        found = 0
        for _ in range(50):
            start = int(np.clip(rng.integers(first - size, last + 1), 0, len(frames) - size))
            shared = min(last, start + size) - max(first, start)
            inside = max(min(b, start + size) - max(a, start) for a, b, other in spans if other is not None)
            busy = inside / size
            good = shared >= 0.6 * min(size, last - first) if label is not None else shared > 0 and busy < 0.25
            if good:
                yield frames[start : start + size], label or nothing
                found += 1
            if found == (each if label is not None else 1):
                break
