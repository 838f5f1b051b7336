"""Frame sampling: pure functions from the number of frames of a video to the 0-based indices of a clip's frames.

Notation: n frames in the video, T segments, L consecutive frames per segment (1 for RGB, 5 for optical flow), and
m = n - L + 1 possible start indices. Frame files of the papers' repositories are numbered from 1.

Source: TSN (arXiv 1608.00859); `TSNDataSet._sample_indices`, `_get_val_indices` and `_get_test_indices` in
ops/dataset.py of mit-han-lab/temporal-shift-module, liu-zhy/temporal-adaptive-module, AdaFocus V1, V2 and Uni-AdaFocus.
"""

from __future__ import annotations

import re

import numpy as np

from adafocus.core.choices import SHORT_RULES, TRAINING_RULES

#: Rules for evaluation; N stands for a number of clips. `evaluation_frames` defines them.
EVALUATION_RULES = ("middle", "fractional", "uniform-N", "twice", "dense-N", "dense-random")


def segment_frames(
    num_frames: int,
    segments: int,
    *,
    short: str = "repeat_last",
    rng: np.random.Generator | None = None,
    length: int = 1,
) -> np.ndarray:
    """Samples one frame from each of T equal segments: a random one in training, the center in evaluation.

    Training: segment i has d = m // T start indices, and the index is i d + U{0..d-1}; the last m - dT indices are
    never used. Evaluation, for m > T: floor(tick / 2 + tick i) with tick = m / T in double precision.

    Args:
        num_frames: number of frames n of the video.
        segments: number of segments T.
        short: rule for videos with too few frames (m < T in training, m <= T in evaluation). "repeat_last": frames
            0..n-1, then n-1 repeated (AdaFocus on ActivityNet, FCVID, Mini-Kinetics). "first_frame": frame 0, T times
            (TSM, TAM and AdaFocus on Something-Something, Jester, Kinetics). "spread": evenly spaced with repeats
            (MMAction2).
        rng: random generator for training; None: evaluation.
        length: number L of consecutive frames per segment.

    Returns:
        (T,) int64 indices, the first frame of each segment.

    Raises:
        ValueError: the video is empty, there are no segments, or the rule is unknown.
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
    if rng is not None and num_frames > segments:  # possible only with length > 1
        return np.sort(rng.integers(0, places, size=segments))
    if rng is None and (places > segments or short == "spread"):
        return _centers(places, segments)
    if short == "first_frame":
        return np.zeros(segments, np.int64)
    if short == "spread":
        return np.minimum(np.round(steps * places / segments).astype(np.int64), places - 1)
    return np.minimum(steps, num_frames - 1)


def _fractional(num_frames: int, segments: int, inside: float | np.ndarray, length: int) -> np.ndarray:
    """Returns frames (T,) at fractions of the video; double precision and the order of operations affect the floor."""
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
    """Samples the frame indices (T,) of a training clip.

    Args:
        num_frames, segments, short, length: arguments of `segment_frames`.
        rng: random generator.
        rule: "uniform": `segment_frames`. "fractional": floor((i + u_i) / T m) with random u_i in [0, 1), so every
            frame can occur and short videos repeat frames (Uni-AdaFocus). "dense": every (64 // T)-th frame from a
            random start, wrapped around at the end of the video; the last possible start is never used, as in TSM's
            code.
        window: number of frames that "dense" spans; None: (64 // T) * T, which is less if T does not divide 64 (TAM).
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
    """Returns the frame indices (clips, T) of all evaluation clips of a video.

    Args:
        num_frames, segments, short, length: arguments of `segment_frames`.
        rule: "middle": one clip of the segments' centers; `short` applies to short videos. "fractional": one clip of
            floor((i + 1/2) / T m) (Uni-AdaFocus; `short` is not used). "uniform-1": one clip of the segments' centers
            for any length. "uniform-N": N clips that start at N evenly spaced frames of the first segment (TAM).
            "twice": two clips, of the centers and of the starts of the segments (TSM). "dense-1": a clip from a window
            in the middle. "dense-N": N clips from evenly spaced windows. "dense-random": one clip from a random window
            (TSM's validation).
        window: number of frames that dense clips span, see `training_frames`.
        rng: random generator for "dense-random".
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
        # A start of -1 (fewer frames than segments) is truncated towards zero before wrapping, as in TAM's code.
        return np.trunc(starts[:, None] + tick * steps).astype(np.int64) % places
    if match and clips:
        last = _dense_places(num_frames, segments, window)
        starts = [last // 2] if clips == 1 else np.floor(np.linspace(0, last - 1, clips)).astype(int)
        return np.stack([dense_frames(num_frames, segments, int(start), window) for start in starts])
    if rule == "dense-random" and rng is not None:
        return dense_frames(num_frames, segments, _random_start(num_frames, segments, window, rng), window)[None]
    raise ValueError(f"unknown rule for evaluation frames {rule!r}; choose one of {', '.join(EVALUATION_RULES)}")


def dense_frames(num_frames: int, segments: int, start: int, window: int | None = 64) -> np.ndarray:
    """Returns every (64 // T)-th frame from `start` on, (T,), wrapped around at the end of the video."""
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
