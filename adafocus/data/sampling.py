"""Which frames of a video make a clip: pure functions from a frame count to 0-based indices.

Notation: n frames in the video, T segments, L consecutive frames a segment (1 for RGB, 5 for optical flow). The seeds
number files from 1; add one for a file name.
"""

from __future__ import annotations

import re

import numpy as np

from adafocus.core.choices import SHORT_RULES, TRAINING_RULES

#: Rules of evaluation; N is a number of clips.
EVALUATION_RULES = ("middle", "fractional", "uniform-N", "twice", "dense-N", "dense-random")


def segment_frames(
    num_frames: int,
    segments: int,
    *,
    short: str = "repeat_last",
    rng: np.random.Generator | None = None,
    length: int = 1,
) -> np.ndarray:
    """One frame of each of T equal segments: random inside the segment for training, its center for evaluation.

    With m = n - L + 1 places to start at: training takes d = m // T places a segment, index i d + U{0..d-1}; the last
    m - dT places are never drawn. Evaluation: floor(tick / 2 + tick i) with tick = m / T in double precision, where m > T.

    Args:
        num_frames: n.
        segments: T.
        short: what a video of too few frames gives (m < T in training, m <= T in evaluation). "repeat_last": frames
            0..n-1, then n-1 again and again (ActivityNet, FCVID, Mini-Kinetics). "first_frame": frame 0, T times
            (Something-Something, Jester, Kinetics; the released code's rule, kept for its published numbers). "spread":
            evenly spread with repeats (MMAction2).
        rng: draws the training indices; None means evaluation.
        length: L.

    Returns:
        (T,) int64 indices, the first frame of each snippet.

    Raises:
        ValueError: an empty video, no segments or an unknown rule.

    Source: AdaFocus V1 and V2, TSM and TAM, released data sets (the TSN rule of arXiv 1608.00859 with the seeds' treatment
    of short videos); spec tsm section 3.3.
    """
    if num_frames < 1 or segments < 1:
        raise ValueError(f"cannot take {segments} segments of a video of {num_frames} frames")
    if short not in SHORT_RULES:
        raise ValueError(f"unknown rule for short videos {short!r}; choose one of {', '.join(SHORT_RULES)}")
    places = max(num_frames - length + 1, 1)
    steps = np.arange(segments)
    each = places // segments
    if rng is not None and each > 0:
        return steps * each + rng.integers(0, each, size=segments)
    if rng is not None and num_frames > segments:  # only snippets come here
        return np.sort(rng.integers(0, places, size=segments))
    if rng is None and (places > segments or short == "spread"):
        return _centers(places, segments)
    if short == "first_frame":
        return np.zeros(segments, np.int64)
    if short == "spread":
        return np.minimum(np.round(steps * places / segments).astype(np.int64), places - 1)
    return np.minimum(steps, num_frames - 1)


def _fractional(num_frames: int, segments: int, inside: float | np.ndarray, length: int) -> np.ndarray:
    """(T,) frames at fractions of the video; double precision and this order of operations decide at whole numbers."""
    if num_frames < 1 or segments < 1:
        raise ValueError(f"cannot take {segments} segments of a video of {num_frames} frames")
    places = max(num_frames - length + 1, 1)
    return np.floor((np.arange(segments) + inside) / segments * places).astype(np.int64)


def _centers(places: int, segments: int) -> np.ndarray:
    tick = places / segments
    return np.floor(tick / 2.0 + tick * np.arange(segments)).astype(np.int64)


def training_frames(
    num_frames: int,
    segments: int,
    rng: np.random.Generator,
    *,
    rule: str = "uniform",
    short: str = "repeat_last",
    window: int | None = 64,
    length: int = 1,
) -> np.ndarray:
    """(T,) indices of a training clip.

    Args:
        rule: "uniform" (`segment_frames`). "fractional": floor((i + u_i) / T m), so that every frame can be drawn and short
            videos repeat theirs (Uni-AdaFocus). "dense": every (64 // T)-th frame of a window at a random place, which starts
            again at frame 0 where it runs over the end. The last place is never drawn, as in the released code.
        window: frames of the window; None: (64 // T) T, which is less where T does not divide 64 (TAM).
    """
    if rule == "uniform":
        return segment_frames(num_frames, segments, short=short, rng=rng, length=length)
    if rule == "fractional":
        return _fractional(num_frames, segments, rng.random(segments), length)
    if rule == "dense":
        return dense_frames(num_frames, segments, _random_start(num_frames, segments, window, rng), window)
    raise ValueError(f"unknown rule for training frames {rule!r}; choose one of {', '.join(TRAINING_RULES)}")


def evaluation_frames(
    num_frames: int,
    segments: int,
    rule: str = "middle",
    *,
    short: str = "repeat_last",
    window: int | None = 64,
    length: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """(clips, T) indices of all clips that a video is judged by.

    Args:
        rule: "middle": centers of the segments, short videos by `short` (one clip). "fractional": floor((i + 1/2) / T m)
            (Uni-AdaFocus; `short` is not read). "uniform-1": centers for every
            length. "uniform-N": N clips that start at N evenly spread places of the first segment (TAM). "twice": centers,
            and starts of the segments (TSM). "dense-1": the window in the middle. "dense-N": N evenly spread windows.
            "dense-random": one window at a place drawn by `rng` (TSM's validation).
        window: see `training_frames`.

    Source: spec tsm section 3.3, spec tam section 3.2.
    """
    match = re.fullmatch(r"(uniform|dense)-(\d+)", rule)
    clips = int(match.group(2)) if match else 0
    if rule == "middle":
        return segment_frames(num_frames, segments, short=short, length=length)[None]
    if num_frames < 1 or segments < 1:
        raise ValueError(f"cannot take {segments} segments of a video of {num_frames} frames")
    places = max(num_frames - length + 1, 1)
    steps = np.arange(segments)
    if rule == "fractional":
        return _fractional(num_frames, segments, 0.5, length)[None]
    if rule == "uniform-1":
        return _centers(places, segments)[None]
    if rule == "twice":
        starts = np.floor(places / segments * steps).astype(np.int64)
        return np.stack((_centers(places, segments), starts))
    if match and clips and match.group(1) == "uniform":
        tick = places / segments
        starts = np.floor(np.linspace(0, tick - 1, clips))
        # A start of -1 (fewer frames than segments) truncates towards zero before it wraps, as the released code does.
        return np.trunc(starts[:, None] + tick * steps).astype(np.int64) % places
    if match and clips:
        last = _dense_places(num_frames, segments, window)
        starts = [last // 2] if clips == 1 else np.floor(np.linspace(0, last - 1, clips)).astype(int)
        return np.stack([dense_frames(num_frames, segments, int(start), window) for start in starts])
    if rule == "dense-random" and rng is not None:
        return dense_frames(num_frames, segments, _random_start(num_frames, segments, window, rng), window)[None]
    raise ValueError(f"unknown rule for evaluation frames {rule!r}; choose one of {', '.join(EVALUATION_RULES)}")


def dense_frames(num_frames: int, segments: int, start: int, window: int | None = 64) -> np.ndarray:
    """(T,) every (64 // T)-th frame from `start` on, wrapped around the end."""
    return (start + np.arange(segments) * _stride(segments, window)) % num_frames


def _stride(segments: int, window: int | None) -> int:
    if segments > (window or 64):
        raise ValueError(f"dense sampling takes at most {window or 64} frames, not {segments}")
    return (window or 64) // segments


def _dense_places(num_frames: int, segments: int, window: int | None) -> int:
    span = _stride(segments, window) * segments if window is None else window
    return max(1, 1 + num_frames - span)


def _random_start(num_frames: int, segments: int, window: int | None, rng: np.random.Generator) -> int:
    places = _dense_places(num_frames, segments, window)
    return 0 if places == 1 else int(rng.integers(0, places - 1))
