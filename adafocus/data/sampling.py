"""Which frames of a video make a clip: pure functions from a frame count to 0-based indices.

Notation: n frames in the video, T segments. The seeds number files from 1; add one for a file name.
"""

from __future__ import annotations

import numpy as np

SHORT_RULES = ("repeat_last", "first_frame")


def segment_frames(
    num_frames: int, segments: int, *, short: str = "repeat_last", rng: np.random.Generator | None = None
) -> np.ndarray:
    """One frame of each of T equal segments: random inside the segment for training, its centre for evaluation.

    Training: d = n // T frames a segment, index i d + U{0..d-1}; the last n - dT frames are never drawn.
    Evaluation: floor(tick / 2 + tick i) with tick = n / T in double precision, where n > T.

    Args:
        num_frames: n.
        segments: T.
        short: what a video of too few frames gives (n < T in training, n <= T in evaluation). "repeat_last": frames
            0..n-1, then n-1 again and again (ActivityNet, FCVID, Mini-Kinetics). "first_frame": frame 0, T times
            (Something-Something, Jester; the released code's rule, kept for its published numbers).
        rng: draws the training indices; None means evaluation.

    Returns:
        (T,) int64 indices.

    Raises:
        ValueError: an empty video, no segments or an unknown rule.

    Source: AdaFocus V1 and V2, released data sets (the TSN rule of arXiv 1608.00859 with the seeds' treatment of short videos).
    """
    if num_frames < 1 or segments < 1:
        raise ValueError(f"cannot take {segments} segments of a video of {num_frames} frames")
    if short not in SHORT_RULES:
        raise ValueError(f"unknown rule for short videos {short!r}; choose one of {', '.join(SHORT_RULES)}")
    steps = np.arange(segments)
    length = num_frames // segments
    if rng is not None and length > 0:
        return steps * length + rng.integers(0, length, size=segments)
    if rng is None and num_frames > segments:
        tick = num_frames / segments
        return np.floor(tick / 2.0 + tick * steps).astype(np.int64)
    if short == "first_frame":
        return np.zeros(segments, np.int64)
    return np.minimum(steps, num_frames - 1)
