from __future__ import annotations

import numpy as np
import pytest
from helpers.golden_cases import Case

from adafocus.data.sampling import evaluation_frames, segment_frames, training_frames


class Pinned:
    """A random generator whose integers are floor(share * range): share=0 gives the lowest integer, 0.999 the
    highest."""

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


def test_golden_indices() -> None:
    golden = Case("adafocus_v2_sampling")
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


def test_fractional_frames_are_those_of_uni_adafocus() -> None:
    golden = Case("uni_adafocus_tsm_data")
    lengths = golden.about["num_frames"]
    for name, segments in (("val_glance", 8), *((f"val_candidates_{n}", n) for n in (24, 36, 48))):
        found = np.stack([evaluation_frames(n, segments, "fractional")[0] + 1 for n in lengths])
        assert (found == golden[name]).all(), name


def test_fractional_frames_where_rounding_decides() -> None:
    """Frame indices equal those of `TSNDataSet` in ops/dataset.py of LeapLabTHU/Uni-AdaFocus (which count from 1) where
    rounding decides."""
    assert (evaluation_frames(100, 48, "fractional")[0][:14] + 1).tolist() == [*range(2, 25, 2), 27, 29]
    assert (evaluation_frames(10, 48, "fractional")[0][:14] + 1).tolist() == [1] * 5 + [2] * 5 + [3] * 4
    assert (evaluation_frames(3, 48, "fractional")[0] + 1).tolist() == [1] * 16 + [2] * 16 + [3] * 16
    exact = np.array([(2 * i + 1) * 216 // 72 for i in range(36)])
    assert (exact - evaluation_frames(216, 36, "fractional")[0]).nonzero()[0].tolist() == [18, 19]


def test_fractional_training_frames_reach_every_frame() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([training_frames(11, 4, rng, rule="fractional") for _ in range(500)])
    assert set(drawn.flatten()) == set(range(11)) and (np.diff(drawn) >= 0).all()
    for segment in range(4):
        assert set(drawn[:, segment]) == set(range(segment * 11 // 4, -(-(segment + 1) * 11 // 4)))
