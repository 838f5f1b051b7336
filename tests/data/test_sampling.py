from __future__ import annotations

import numpy as np
import pytest

from adafocus.data.sampling import segment_frames


class Pinned:
    """A generator whose integers are floor(share * range): 0 the lowest draw, 0.999 the highest."""

    def __init__(self, share: float) -> None:
        self.share = share

    def integers(self, low: int, high: int, size: int) -> np.ndarray:
        return np.full(size, low + int(self.share * (high - low)))


@pytest.mark.parametrize(
    ("frames", "segments", "short", "expected"),
    [
        (100, 16, "repeat_last", [3, 9, 15, 21, 28, 34, 40, 46, 53, 59, 65, 71, 78, 84, 90, 96]),
        (16, 16, "repeat_last", list(range(16))),
        (5, 8, "repeat_last", [0, 1, 2, 3, 4, 4, 4, 4]),
        (8, 8, "first_frame", [0] * 8),
        (9, 8, "first_frame", [0, 1, 2, 3, 5, 6, 7, 8]),
        (1, 4, "repeat_last", [0, 0, 0, 0]),
    ],
)
def test_evaluation_indices(frames: int, segments: int, short: str, expected: list[int]) -> None:
    assert segment_frames(frames, segments, short=short).tolist() == expected


def test_training_indices_stay_in_their_segments() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        index = segment_frames(50, 8, rng=rng)
        assert ((index >= np.arange(8) * 6) & (index < np.arange(1, 9) * 6)).all()


@pytest.mark.parametrize("frames", [0, -1])
def test_an_empty_video_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="0|-1"):
        segment_frames(frames, 8)


def test_golden_indices(shared) -> None:
    golden = np.load(shared / "golden/adafocus_v2_sampling/outputs.npz")
    rows = {
        "untrimmed_val": (16, "repeat_last", None),
        "sth_val_glance": (8, "first_frame", None),
        "sth_val_focus": (12, "first_frame", None),
    }
    for suffix, share in (("low", 0.0), ("high", 0.999)):
        rows[f"untrimmed_train_{suffix}"] = (16, "repeat_last", share)
        rows[f"sth_train_glance_{suffix}"] = (8, "first_frame", share)
        rows[f"sth_train_focus_{suffix}"] = (12, "first_frame", share)
    for name, (segments, short, share) in rows.items():
        for frames, expected in zip(golden["num_frames"], golden[name], strict=True):
            rng = None if share is None else Pinned(share)
            index = segment_frames(int(frames), segments, short=short, rng=rng) + 1
            assert index.tolist() == expected.tolist(), (name, frames)
