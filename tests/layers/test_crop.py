from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from torch.nn import functional

from adafocus.layers.crop import boxes, crop, crop_rectangles


def by_grid_sampler(frames: torch.Tensor, where: torch.Tensor, size: int) -> torch.Tensor:
    """Crops as the released code does: `affine_grid` and bilinear `grid_sample` over the whole frame."""
    height, width = frames.shape[-2:]
    theta = frames.new_zeros(len(frames), 2, 3)
    y, x = where[:, 0] * (height - size), where[:, 1] * (width - size)
    theta[:, 0, 0], theta[:, 1, 1] = size / width, size / height
    theta[:, 0, 2], theta[:, 1, 2] = -1 + (2 * x + size) / width, -1 + (2 * y + size) / height
    grid = functional.affine_grid(theta, [len(frames), 3, size, size], align_corners=False)
    return functional.grid_sample(frames, grid, align_corners=False)


@pytest.mark.parametrize(("shape", "size"), [((5, 3, 64, 64), 32), ((3, 3, 50, 71), 33), ((2, 3, 20, 20), 20)])
def test_equals_the_grid_sampler_in_value_and_gradient(shape: tuple[int, ...], size: int) -> None:
    torch.manual_seed(0)
    frames = torch.rand(shape, dtype=torch.float64)
    where = torch.rand(shape[0], 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(shape[0], 3, size, size, dtype=torch.float64)
    ours, theirs = crop(frames, where, size), by_grid_sampler(frames, where, size)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    gradient = torch.autograd.grad((ours * weight).sum(), where)[0]
    if size < min(shape[-2:]):
        torch.testing.assert_close(
            gradient, torch.autograd.grad((theirs * weight).sum(), where)[0], atol=1e-7, rtol=1e-7
        )


def test_reads_the_ramp_at_the_exact_place() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    frames = torch.stack([y, x, 0 * x])[None]
    where = torch.tensor([[0.3, 0.7]])
    patch = crop(frames, where, 16)[0]
    i = torch.arange(16.0)
    torch.testing.assert_close(patch[0], (0.3 * 24 + i)[:, None].expand(16, 16))
    torch.testing.assert_close(patch[1], (0.7 * 44 + i)[None].expand(16, 16))


@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0)])
def test_the_ends_of_the_range_are_the_corners_of_the_frame(corner: tuple[float, float]) -> None:
    frames = torch.rand(1, 3, 20, 24)
    top, left = int(corner[0] * 8), int(corner[1] * 12)
    torch.testing.assert_close(crop(frames, torch.tensor([corner]), 12), frames[..., top : top + 12, left : left + 12])


def test_gradient_by_finite_differences() -> None:
    frames = torch.rand(2, 2, 9, 11, dtype=torch.float64)
    where = torch.tensor([[0.31, 0.77], [0.52, 0.13]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda place: crop(frames, place, 5), (where,))


def test_a_diverged_policy_gives_nan_and_no_crash() -> None:
    assert crop(torch.rand(1, 3, 8, 8), torch.tensor([[float("nan"), 0.5]]), 4).isnan().any()


def test_coordinates_stay_exact_under_autocast() -> None:
    frames, where = torch.rand(1, 3, 224, 224), torch.tensor([[0.4321, 0.8765]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crop(frames, where, 128), crop(frames.clone(), where, 128))
        inside = crop(frames, where, 128)
    assert torch.equal(inside, crop(frames, where, 128))


def test_channels_last_goes_in_and_out() -> None:
    frames = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert crop(frames, torch.rand(2, 2), 8).is_contiguous(memory_format=torch.channels_last)


def test_a_patch_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="32 pixels does not fit into frames of 16x40"):
        crop(torch.rand(1, 3, 16, 40), torch.rand(1, 2), 32)


def test_rectangles_equal_the_released_patches() -> None:
    golden = Case("uni_adafocus_patch")
    images = golden_weights.frames("uni_adafocus_patch", (6, 3, 224, 224))
    maps = golden_weights.array("uni_adafocus_patch/featuremap", (6, 8, 7, 7))
    where = torch.from_numpy(golden["actions"])
    for size in (96, 128, 160):
        patch = crop_rectangles(images, where, size, smallest=96)
        step = size // 16
        golden.check(f"patch_{size}", patch[..., ::step, ::step], 1e-4, of=1.0)
        cells = crop_rectangles(maps, where, size // 32, smallest=3, largest=7)
        golden.check(f"feature_patch_{size}", cells, 1e-5, of=1.0)


def test_rectangles_of_one_video_and_their_gradient() -> None:
    golden = Case("uni_adafocus_tsm_patch")
    safe = {96: [6, 7, 8, 9], 128: [0, 1, 2, 4, 5, 6, 7, 8, 9]}
    frame = golden_weights.frames("uni_adafocus_tsm_patch/frames", (1, 224, 224)).expand(10, -1, -1, -1)
    maps = golden_weights.array("uni_adafocus_tsm_patch/maps", (1, 4, 7, 7)).expand(10, -1, -1, -1)
    for size in (96, 128):
        where = torch.from_numpy(golden["actions"]).requires_grad_()
        patch = crop_rectangles(frame, where, size, smallest=96)[:, 0].detach()
        golden.check(f"patch_{size}_inside", patch[:, ::4, ::4], 1e-4, of=1.0)
        cells = crop_rectangles(maps, where, size // 32, smallest=3, largest=7)
        golden.check(f"map_{size}", cells, 1e-5, of=1.0)
        side = size // 32
        weights = golden_weights.array(f"uni_adafocus_tsm_patch/coef_{size}", (10, 4, side, side))
        (cells * weights).sum().backward()
        found, wanted = where.grad[safe[size]].numpy(), golden[f"map_{size}_grad_action"][safe[size]]
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_a_rectangle_of_the_patchs_own_size_is_the_crop() -> None:
    frames = torch.rand(3, 3, 40, 40)
    corner = torch.rand(3, 2)
    where = torch.cat([corner, torch.full((3, 2), (16 - 10) / (40 - 10))], 1)
    torch.testing.assert_close(crop_rectangles(frames, where, 16, smallest=10), crop(frames, corner, 16))


def test_boxes_in_pixels() -> None:
    assert boxes(torch.tensor([0.5, 1.0]), 224, smallest=96).tolist() == [64, 128, 96, 96]
    assert boxes(torch.tensor([0.5, 1.0, 1.0, 0.25]), 224, smallest=96).tolist() == [0, 96, 224, 128]
