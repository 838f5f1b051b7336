"""Pixels of a clip: crop, resize and flip on uint8 in the worker, normalization on the device.

One draw serves all frames of a clip. Frames are (T, H, W, 3) uint8, RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CROP_SCALES = (1.0, 0.875, 0.75, 0.66)


class Box(NamedTuple):
    """A rectangle in pixels: top, left corner, height, width."""

    top: int
    left: int
    height: int
    width: int


#: Places of the training crop, in quarters of the free range: (across, down).
_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def multi_scale_sizes(
    height: int, width: int, size: int, scales: Sequence[float] = CROP_SCALES
) -> list[tuple[int, int]]:
    """(height, width) of every training crop of TSN and all its descendants, in the seeds' order.

    Side lengths are int(short side * scale); one within 2 pixels of `size` becomes `size`. Height and width come from
    scales whose places in the list differ by at most one.

    Source: spec of AdaFocus V1/V2 section 3.4, spec tsm section 3.4 (GroupMultiScaleCrop of the TSN code).
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
    """A training crop at its 13 places, in the seeds' order; places are whole quarters of the free range."""
    down, right = (height - crop[0]) // 4, (width - crop[1]) // 4
    return [Box(along * down, across * right, *crop) for across, along in _PLACES]


def multi_scale_box(
    height: int, width: int, size: int, rng: np.random.Generator, scales: Sequence[float] = CROP_SCALES
) -> Box:
    """One of `multi_scale_sizes` at one of its places, both uniform draws."""
    sizes = multi_scale_sizes(height, width, size, scales)
    crop = sizes[int(rng.integers(len(sizes)))]
    return multi_scale_places(height, width, crop)[int(rng.integers(len(_PLACES)))]


def stretched_box(height: int, width: int, rng: np.random.Generator, scales: Sequence[float] = CROP_SCALES) -> Box:
    """A crop whose sides are each one of `scales` of the frame's own, at a uniform place: for clips that keep whole frames."""
    crop_height, crop_width = (round(side * scales[int(rng.integers(len(scales)))]) for side in (height, width))
    top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
    return Box(top, left, crop_height, crop_width)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) when the shorter side becomes `short_side` and the longer is truncated to whole pixels."""
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear resize, as Pillow's: (T, H, W, C) uint8 to (T, height, width, C) uint8."""
    if frames.shape[1:3] == (height, width):
        return frames
    # The permuted view is what torch calls channels-last: the kernel works on it without a copy.
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
    """Random crop, resize to (size, size) and, if `flip`, mirror: (T, size, size, C) uint8, contiguous."""
    height, width = frames.shape[1:3]
    box = stretched_box(height, width, rng, scales) if stretch else multi_scale_box(height, width, size, rng, scales)
    cropped = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    view = resize(cropped, size, size)
    return (mirror(view) if flip else view).contiguous()


def mirror(frames: Tensor) -> Tensor:
    """Frames (T, H, W, C) as in a mirror; optical flow (C even, x before y) also changes the sign of its x."""
    mirrored = frames.flip(2)
    if frames.shape[-1] % 2 == 0:
        mirrored[..., ::2] = 255 - mirrored[..., ::2]
    return mirrored


def crop_places(height: int, width: int, size: int, crops: int, *, flush: bool = False) -> list[tuple[int, int]]:
    """(top, left) of the square test crops of `size` in a frame whose short side has its test size.

    1: the center, halves rounded to even. 3: left, right, center. 5: the corners and the center. 10: the same five (each is
    shown once more in a mirror, which is not a place). Steps are whole quarters of the free range, so the right and lower
    crops may end up to 3 pixels before the border, and the three crops of a portrait frame coincide where they fill its
    width: both as in the released code.

    Args:
        flush: MMAction2's three crops: first, last and middle place, along the longer side.

    Source: spec tsm section 3.4, spec tam sections 3.3 and 12.2.
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
    """Shorter side to `short_side`, then the test crops: (T, H, W, C) to (crops, T, size, size, C), contiguous."""
    frames = resize(frames, *short_side_size(frames.shape[1], frames.shape[2], short_side))
    views = []
    for top, left in crop_places(frames.shape[1], frames.shape[2], size, crops, flush=flush):
        view = frames[:, top : top + size, left : left + size]
        views += [view, mirror(view)] if crops == 10 else [view]
    return torch.stack(views)


class Normalize:
    """uint8 clips to what networks read: (B, T, H, W, C) to float (B, T, C, H, W), (x / 255 - mean) / std per channel.

    Args:
        mean, std: of each channel, or one number for all of them (optical flow).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.scale = torch.tensor([1.0 / (255.0 * s) for s in std])
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])

    def __call__(self, frames: Tensor) -> Tensor:
        """Runs on the device of `frames`; the result is a channels-last view, which convolutions read without a copy."""
        scale, shift = self.scale.to(frames.device), self.shift.to(frames.device)
        return torch.addcmul(shift, frames.float(), scale).permute(0, 1, 4, 2, 3)
