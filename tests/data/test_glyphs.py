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
    """The same video rendered with the glyph of another class gives bit-identical frames at the size of the glance."""
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


def test_the_direction_of_motion_is_the_class() -> None:
    source = videos(task="motion", classes=4, frames=8, size=200)
    ring = 96 - 16 + REDUCTION
    for index in range(20):
        drawn = source.draw(index)
        assert (drawn.where >= 0).all() and (drawn.where <= 96 - 16).all()
        steps = (np.diff(drawn.where, axis=0) + ring / 2) % ring - ring / 2  # shorter of the two directions on the ring
        way = steps.sum(0)
        angle = np.arctan2(way[0], way[1]) % (2 * np.pi)
        assert round(angle / (np.pi / 2)) % 4 == drawn.label


@pytest.mark.parametrize("frame", [0, 7])
def test_one_frame_of_a_motion_does_not_tell_the_class(frame: int) -> None:
    """A classifier of the glyph's position in one frame, fitted on half of the videos, is at chance on the other
    half."""
    drawn = [videos(task="motion", classes=4, frames=8, size=3000).draw(index) for index in range(3000)]
    labels = np.array([one.label for one in drawn])
    third = np.array([one.where[frame] // 28 for one in drawn]).astype(int)
    counts = np.zeros((3, 3, 4))
    np.add.at(counts, (third[:1500, 0], third[:1500, 1], labels[:1500]), 1)
    guess = counts[third[1500:, 0], third[1500:, 1]].argmax(1)
    assert (guess == labels[1500:]).mean() < 0.30


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "who"}, "task="),
        ({"glyph_size": 15}, "must be 8 or 16"),
        ({"glyph_size": 32}, "must be 8 or 16"),  # cells of 8 pixels would be visible in the reduced frames
        ({"classes": 1}, "at least 2"),
        ({"visible": 5}, "visible=5"),
        ({"task": "motion", "frames": 1}, "at least 2 frames"),
    ],
)
def test_impossible_tasks_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        videos(**changes)


def test_decoys_look_like_the_glyph_when_reduced_and_are_of_no_class() -> None:
    source = videos(decoys=2, others=0, classes=10)
    drawn = source.draw(1)
    warm = drawn.frames[0, ..., 0].astype(int) - drawn.frames[0, ..., 2] > 70
    assert warm.sum() > 2 * 16 * 16  # pixels of more than two glyphs
    before = drawn.frames
    source.ink[10:] = source.ink[10:][::-1].copy()  # other patterns of decoys change the frames, but not when reduced
    after = source.draw(1).frames
    assert not np.array_equal(before, after) and np.array_equal(reduced(before), reduced(after))
    assert np.array_equal(videos(classes=10).ink[:10], videos(classes=10, decoys=3).ink[:10])
