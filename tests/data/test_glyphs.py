from __future__ import annotations

import numpy as np
import pytest

from adafocus.data.glyphs import CELLS, REDUCTION, GlyphVideos, glyph_patterns


def videos(**changes) -> GlyphVideos:
    return GlyphVideos(**{"split": "train", "size": 40, "frames": 4, "seed": 5, **changes})


def reduced(frames: np.ndarray) -> np.ndarray:
    count, height, width, _ = frames.shape
    blocks = frames.reshape(count, height // REDUCTION, REDUCTION, width // REDUCTION, REDUCTION, 3)
    return blocks.mean((2, 4))


def test_a_video_is_a_function_of_seed_split_and_index() -> None:
    one, two = videos().draw(7), videos().draw(7)
    assert np.array_equal(one.frames, two.frames) and one.label == two.label
    for other in (videos(seed=6), videos(split="val")):
        assert not np.array_equal(one.frames, other.draw(7).frames)


def test_classes_differ_in_every_glyph_and_agree_when_reduced() -> None:
    cells = glyph_patterns(10)
    blocks = cells.reshape(10, CELLS // 2, 2, CELLS // 2, 2).sum((2, 4))
    assert (blocks == 2).all()
    assert min(np.abs(a.astype(int) - b).sum() for i, a in enumerate(cells) for b in cells[:i]) >= 10


def test_the_reduced_view_hides_the_class_exactly(monkeypatch) -> None:
    """The same video drawn with another class's ink gives the same reduced frames, to the bit."""
    source = videos(others=0)
    before = source.draw(3)
    source.ink = source.ink[::-1].copy()
    after = source.draw(3)
    assert not np.array_equal(before.frames, after.frames)
    assert np.array_equal(reduced(before.frames), reduced(after.frames))


def test_the_reduced_view_shows_the_place() -> None:
    for index in range(20):
        drawn = videos(others=3).draw(index)
        warm = reduced(drawn.frames)[..., 0] - reduced(drawn.frames)[..., 2]
        for frame, (top, left) in enumerate(drawn.where):
            y, x = np.unravel_index(warm[frame].argmax(), warm[frame].shape)
            assert 0 <= y * REDUCTION - top < 16 and 0 <= x * REDUCTION - left < 16


def test_when_shows_the_glyph_in_few_frames() -> None:
    drawn = videos(task="when", frames=12, visible=2).draw(0)
    assert drawn.visible.sum() == 2
    warm = drawn.frames[..., 0].astype(int) - drawn.frames[..., 2]
    assert np.array_equal((warm > 120).any((1, 2)), drawn.visible)


def test_motion_is_in_the_order_of_frames_alone() -> None:
    source = videos(task="motion", classes=4, frames=8, size=200)
    for index in range(20):
        drawn = source.draw(index)
        way = drawn.where[-1] - drawn.where[0]
        angle = np.arctan2(way[0], way[1]) % (2 * np.pi)
        assert round(angle / (np.pi / 2)) % 4 == drawn.label
        assert (drawn.where >= 0).all() and (drawn.where <= 96 - 16).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"task": "who"}, "dataset.task"), ({"glyph_size": 15}, "multiple of 8"), ({"classes": 1}, "at least 2")],
)
def test_impossible_tasks_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        videos(**changes)
