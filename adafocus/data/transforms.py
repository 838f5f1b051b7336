"""Transforms of a clip: crop, resize and flip on uint8 in the loader process, normalization on the device.

All frames of a clip get the same crop and flip. Frames are (T, H, W, 3) uint8, RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
#: Mean and standard deviation of R, G and B that most networks with ImageNet weights are trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Box(NamedTuple):
    """A rectangle in pixels: its top left corner (`top`, `left`), height and width."""

    top: int
    left: int
    height: int
    width: int


#: Corners of the training crop as (x, y), in quarters of the largest offset (frame side minus crop side).
_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def multi_scale_sizes(
    height: int, width: int, size: int, scales: Sequence[float] = CROP_SCALES
) -> list[tuple[int, int]]:
    """Returns (height, width) of every possible training crop of TSN, TSM, TAM and AdaFocus.

    Side lengths are int(short side * scale); one within 2 pixels of `size` becomes `size`. Height and width use scales
    whose positions in the list differ by at most one.

    Source: `GroupMultiScaleCrop` in ops/transforms.py of mit-han-lab/temporal-shift-module and of the AdaFocus
    repositories.
    """
    sides = [int(min(height, width) * scale) for scale in scales]
    sides = [size if abs(side - size) < 3 else side for side in sides]
    # A frame within two pixels of `size` may have become smaller than its crop: stay inside.
    return [
        (min(tall, height), min(wide, width))
        for i, tall in enumerate(sides)
        for j, wide in enumerate(sides)
        if abs(i - j) <= 1
    ]


def multi_scale_places(height: int, width: int, crop: tuple[int, int]) -> list[Box]:
    """Returns the 13 possible boxes of a training crop, in the order of `GroupMultiScaleCrop.fill_fix_offset`."""
    down, right = (height - crop[0]) // 4, (width - crop[1]) // 4
    return [Box(along * down, across * right, *crop) for across, along in _PLACES]


def multi_scale_box(
    height: int, width: int, size: int, rng: np.random.Generator, scales: Sequence[float] = CROP_SCALES
) -> Box:
    """Samples a training crop: a size of `multi_scale_sizes` and one of its locations, both uniformly."""
    sizes = multi_scale_sizes(height, width, size, scales)
    crop = sizes[int(rng.integers(len(sizes)))]
    return multi_scale_places(height, width, crop)[int(rng.integers(len(_PLACES)))]


def stretched_box(height: int, width: int, rng: np.random.Generator, scales: Sequence[float] = CROP_SCALES) -> Box:
    """Samples a crop with height and width each scaled by an element of `scales`, for dataset.fit=stretch."""
    crop_height, crop_width = (round(side * scales[int(rng.integers(len(scales)))]) for side in (height, width))
    top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
    return Box(top, left, crop_height, crop_width)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Returns (height, width) after resizing the shorter side to `short_side`; the longer side is truncated."""
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Resizes frames (T, H, W, C) uint8 to (T, height, width, C), bilinear with antialiasing like Pillow."""
    if frames.shape[1:3] == (height, width):
        return frames
    # The permuted view has torch's channels-last format, which the kernel processes without a copy.
    planes = functional.interpolate(
        frames.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return planes.permute(0, 2, 3, 1)


def train_view(
    frames: Tensor,
    size: int,
    rng: np.random.Generator,
    *,
    flip: bool,
    scales: Sequence[float] = CROP_SCALES,
    stretch: bool = False,
) -> Tensor:
    """Crops frames at random, resizes them to (T, size, size, C) uint8 and, if `flip`, mirrors them."""
    height, width = frames.shape[1:3]
    box = stretched_box(height, width, rng, scales) if stretch else multi_scale_box(height, width, size, rng, scales)
    cropped = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    view = resize(cropped, size, size)
    return (mirror(view) if flip else view).contiguous()


def rand_augment(frames: Tensor, rng: np.random.Generator, *, ops: int, magnitude: int) -> Tensor:
    """Applies RandAugment (arXiv 1909.13719) to RGB frames (T, H, W, 3) uint8, the same operations to all of them.

    torchvision samples the operations from torch's random state, which is seeded from `rng` and then restored. None of
    the operations mirrors a frame, so labels of classes that a flip exchanges stay correct.
    """
    from torchvision.transforms import InterpolationMode, v2  # imported here, because it takes a second

    transform = v2.RandAugment(ops, magnitude, interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(int(rng.integers(2**62)))  # seeds the CPU's generator only
        return transform(frames.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def mirror(frames: Tensor) -> Tensor:
    """Flips frames (T, H, W, C) horizontally; x components of optical flow (even C, x before y) also change sign."""
    mirrored = frames.flip(2)
    if frames.shape[-1] % 2 == 0:
        mirrored[..., ::2] = 255 - mirrored[..., ::2]
    return mirrored


def crop_places(height: int, width: int, size: int, crops: int, *, flush: bool = False) -> list[tuple[int, int]]:
    """Returns (top, left) of the square test crops of `size` pixels in a resized frame.

    Offsets are integer quarters of the largest offset, so the right and lower crops may end up to 3 pixels before the
    border, and the three crops of a portrait frame coincide if they fill its width; both are as in TSM's code.

    Args:
        height, width: size of the resized frame in pixels.
        size: side of the crops in pixels.
        crops: 1: the center, halves rounded to even. 3: left, right, center. 5: the corners and the center. 10: these
            five, which `evaluation_views` also flips.
        flush: whether to use MMAction2's three crops, at both ends and in the middle of the longer side; if the
            difference of the sides is odd, the last one ends a pixel before the border, as in MMAction2.

    Source: `GroupFullResSample` and `GroupOverSample` in ops/transforms.py of mit-han-lab/temporal-shift-module;
    `ThreeCrop` in mmaction/datasets/transforms/processing.py of open-mmlab/mmaction2.
    """
    if size > min(height, width):
        raise ValueError(f"a crop of {size} pixels does not fit into a frame of {width}x{height}")
    if crops == 1:
        return [(round((height - size) / 2), round((width - size) / 2))]
    if crops == 3 and flush:
        step = (max(height, width) - size) // 2
        along = (0, 2 * step, step)
        return [(0, place) for place in along] if width >= height else [(place, 0) for place in along]
    down, right = (height - size) // 4, (width - size) // 4
    center = (2 * down, 2 * right)
    if crops == 3:
        return [(2 * down, 0), (2 * down, 4 * right), center]
    if crops in (5, 10):
        return [(0, 0), (0, 4 * right), (4 * down, 0), (4 * down, 4 * right), center]
    raise ValueError(f"{crops} crops are unknown; choose 1, 3, 5 or 10")


def evaluation_views(frames: Tensor, size: int, short_side: int, crops: int = 1, *, flush: bool = False) -> Tensor:
    """Resizes the shorter side to `short_side` and takes the test crops: (T, H, W, C) to (crops, T, size, size, C)."""
    frames = resize(frames, *short_side_size(frames.shape[1], frames.shape[2], short_side))
    views = []
    for top, left in crop_places(frames.shape[1], frames.shape[2], size, crops, flush=flush):
        view = frames[:, top : top + size, left : left + size]
        views += [view, mirror(view)] if crops == 10 else [view]
    return torch.stack(views)


class Normalize:
    """Normalizes uint8 clips (B, T, H, W, C) to float (B, T, C, H, W): (x / 255 - mean) / std per channel.

    Args:
        mean, std: one number per channel, or one for all channels (optical flow).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.scale = torch.tensor([1.0 / (255.0 * s) for s in std])
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self._rows: dict[tuple[torch.device, int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, frames: Tensor) -> Tensor:
        """Normalizes on the device of `frames`; the result is a channels-last view."""
        width, channels = frames.shape[-2:]
        scale, shift = self._row(frames.device, width, channels)
        rows = torch.addcmul(shift, frames.flatten(-2).float(), scale)
        return rows.unflatten(-1, (width, channels)).permute(0, 1, 4, 2, 3)

    def _row(self, device: torch.device, width: int, channels: int) -> tuple[Tensor, Tensor]:
        """Returns scale and shift (width * channels,) for every value in a row of pixels.

        Whole rows are faster than an innermost dimension of three channels. The tensors are cached, because copying
        them for every batch would synchronize with a GPU.
        """
        key = device, width, channels
        if key not in self._rows:
            scale, shift = (values.expand(channels).repeat(width).to(device) for values in (self.scale, self.shift))
            self._rows[key] = scale, shift
        return self._rows[key]
