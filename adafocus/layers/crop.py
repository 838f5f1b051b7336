"""Coordinates to pixels: patches cut out of frames, at whole pixels, between pixels, or resampled."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.layers.precision import full_precision


def crop(frames: Tensor, where: Tensor, size: int) -> Tensor:
    """Square patches at sub-pixel places, differentiable in the place.

    The corner lies at (y, x) = where * (H - P, W - P), not rounded; patch pixel (i, j) is the bilinear value of the frame
    at (y + i, x + j). It is a translation, never a resize, so it is a blend of four integer slices:

        (1-fy)(1-fx) X[i, j] + (1-fy) fx X[i, j+1] + fy (1-fx) X[i+1, j] + fy fx X[i+1, j+1],

    with f the fraction of the corner and X the slice at its floor. `where` receives its gradient through the fractions
    (times the free range); the frames receive none, since nothing before the crop learns from it. Corners, fractions and
    blend stay in float32 under autocast: bfloat16 cannot hold 96.37 pixels.

    Args:
        frames: (N, C, H, W), floating point.
        where: (N, 2) fractions (y, x) in [0, 1] of the free range.
        size: P, at most min(H, W).

    Returns:
        (N, C, P, P), channels-last if the frames are.

    Raises:
        ValueError: the patch is larger than the frame.

    Source: AdaFocus V2 (arXiv 2112.14238) section 3.2. Differs from the released code, an affine grid over the whole
    frame and grid_sample, in how it is computed: the values agree to 1e-5.
    """
    height, width = frames.shape[-2:]
    if size > min(height, width):
        raise ValueError(f"a patch of {size} pixels does not fit into frames of {height}x{width}")
    with full_precision(frames):
        dtype = torch.promote_types(frames.dtype, torch.float32)
        free = where.new_tensor([height - size, width - size], dtype=dtype)
        corner = where.to(dtype) * free
        # The last whole corner must leave one more row and column to blend with, unless there is no freedom at all.
        # A diverged policy gives NaN: cut anywhere, and let the NaN in the fractions reach the loss, where it is reported.
        floor = corner.detach().floor().nan_to_num(0.0)
        whole = torch.minimum(floor, (free - 1).clamp(min=0)).clamp(min=0)
        down, across = (corner - whole).view(-1, 2, 1, 1, 1).unbind(1)
        source = _slices(frames.detach(), whole.long(), size + 1)
        source = source.to(dtype)
        rows = source[:, :, :size] + (source[:, :, 1:] - source[:, :, :size]) * down
        return rows[..., :size] + (rows[..., 1:] - rows[..., :size]) * across


def _slices(frames: Tensor, corner: Tensor, size: int) -> Tensor:
    """(N, C, size, size) whole-pixel squares at (N, 2) corners, in one gather; the frame's border is repeated."""
    height, width = frames.shape[-2:]
    span = torch.arange(size, device=frames.device)
    rows = (corner[:, :1] + span).clamp(max=height - 1)
    columns = (corner[:, 1:] + span).clamp(max=width - 1)
    sample = torch.arange(frames.shape[0], device=frames.device)[:, None, None]
    # Indexing the pixel-major view keeps the channels of a pixel together: one wide copy a pixel, and channels-last out.
    pixels = frames.permute(0, 2, 3, 1)
    return pixels[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_rectangles(
    frames: Tensor, where: Tensor, size: int, *, smallest: float, largest: float | None = None
) -> Tensor:
    """Rectangles of free size and aspect, resampled to squares; differentiable in place and size.

    A rectangle (y, x, h, w) in [0, 1] is smallest + h (largest - smallest) pixels high, its width alike, and its corner
    lies at (y, x) times what is left of the frame. Bilinear, half-pixel centers, zero outside the frame: an enlarged
    rectangle at the border mixes in half a pixel of zeros, the mean color. There is no low-pass filter: a large rectangle
    is point-sampled, which is part of the published models. In float32 under autocast.

    Args:
        frames: (N, C, H, W), floating point and normalized; square. Feature maps as well.
        where: (N, 4).
        size: side of the result.
        smallest, largest: sides in pixels of the frame (96 and 224 in all published models); largest None: the whole frame.

    Returns:
        (N, C, size, size).

    Source: Uni-AdaFocus (arXiv 2412.11228); spec uni_adafocus 2.7.
    """
    side = frames.shape[-1]
    with full_precision(frames):
        dtype = torch.promote_types(frames.dtype, torch.float32)
        top, left, height, width = boxes(where.to(dtype), side, smallest=smallest, largest=largest).unbind(-1)
        zero = torch.zeros_like(top)
        row = torch.stack([width / side, zero, (2 * left + width) / side - 1], -1)
        column = torch.stack([zero, height / side, (2 * top + height) / side - 1], -1)
        grid = functional.affine_grid(
            torch.stack([row, column], 1), [frames.shape[0], 1, size, size], align_corners=False
        )
        return functional.grid_sample(frames.to(dtype), grid, padding_mode="zeros", align_corners=False)


def cut(frames: Tensor, where: Tensor, size: int) -> Tensor:
    """Square patches at whole pixels: the corner is floor(where * (S - P)).

    Args:
        frames: (N, C, S, S).
        where: (N, 2) fractions (y, x).
        size: P.

    Returns:
        (N, C, P, P), channels-last: one gather of whole pixels.
    """
    side = frames.shape[-1]
    # A cell's fraction times the range may fall a rounding error (1e-5 pixels) below a whole number.
    corner = (where.float() * (side - size) + 1e-4).floor().long().clamp(0, side - size)
    return _slices(frames, corner, size)


def boxes(where: Tensor, frame_size: int, *, smallest: float, largest: float | None = None) -> Tensor:
    """(..., 2) corners or (..., 4) rectangles in [0, 1] to (..., 4): top, left, height, width in pixels of the frame.

    Corners are of squares with the side `smallest`; see `crop` and `crop_rectangles`.
    """
    if where.shape[-1] == 2:
        sides = torch.full_like(where, smallest)
    else:
        sides = smallest + where[..., 2:] * ((largest or frame_size) - smallest)
    return torch.cat([where[..., :2] * (frame_size - sides), sides], -1)
