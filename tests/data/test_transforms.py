from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from adafocus.data.transforms import Normalize, evaluation_views, multi_scale_box, resize, short_side_size, train_view


def clip(frames: int = 3, height: int = 60, width: int = 80) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8))


def test_resize_is_pillows_bilinear_within_one_level() -> None:
    frames = clip()
    ours = resize(frames, 37, 53)
    pillow = np.asarray(Image.fromarray(frames[1].numpy()).resize((53, 37), Image.Resampling.BILINEAR))
    assert np.abs(ours[1].numpy().astype(int) - pillow).max() <= 1


def test_evaluation_views_is_resize_and_center_crop() -> None:
    view = evaluation_views(clip(), 24, 30)[0]
    assert torch.equal(view, resize(clip(), 30, 40)[:, 3:27, 8:32])


def test_the_long_side_is_truncated() -> None:
    assert short_side_size(360, 640, 256) == (256, 455)
    assert short_side_size(640, 360, 256) == (455, 256)


def test_boxes_stay_inside_and_have_neighboring_scales() -> None:
    seen = set()
    for seed in range(300):
        box = multi_scale_box(240, 320, 224, np.random.default_rng(seed))
        assert 0 <= box.top <= 240 - box.height and 0 <= box.left <= 320 - box.width
        seen.add((box.height, box.width))
    sides = [240, 210, 180, 158]
    assert seen == {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}


def test_a_side_within_two_pixels_becomes_the_output_size_even_if_the_frame_is_smaller() -> None:
    for seed in range(50):
        box = multi_scale_box(223, 223, 224, np.random.default_rng(seed))
        assert box.height <= 223 and box.width <= 223


def test_training_view_mirrors_and_is_contiguous() -> None:
    plain = train_view(clip(), 32, np.random.default_rng(1), flip=False)
    mirrored = train_view(clip(), 32, np.random.default_rng(1), flip=True)
    assert torch.equal(plain.flip(2), mirrored)
    assert plain.is_contiguous() and plain.shape == (3, 32, 32, 3)


@pytest.mark.parametrize("shape", [(1, 2, 8, 6, 3), (2, 1, 5, 5, 3)])
def test_normalize_is_the_formula_in_channels_last(shape: tuple[int, ...]) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    expected = ((frames.float() / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 1, 4, 2, 3)
    result = Normalize(mean, std)(frames)
    torch.testing.assert_close(result, expected)
    assert result.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
