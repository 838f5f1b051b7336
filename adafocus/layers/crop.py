"""Cropping of patches from frames: at integer pixels, at sub-pixel locations, or rectangles resized to squares."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.layers.precision import full_precision


def crop(frames: Tensor, where: Tensor, size: int) -> Tensor:
    """Cuts square patches at sub-pixel locations, differentiable with respect to the location.

    The corner lies at (y, x) = where * (H - P, W - P), not rounded; patch pixel (i, j) is the bilinear value of the
    frame at (y + i, x + j). It is a translation, never a resize, so it is a blend of four integer slices:

        (1-fy)(1-fx) X[i, j] + (1-fy) fx X[i, j+1] + fy (1-fx) X[i+1, j] + fy fx X[i+1, j+1],

    with f the fractional part of the corner and X the slice at its integer part. `where` gets its gradient through the
    fractional parts; the frames receive none, since nothing before the crop is trained through it. Corners, fractional
    parts and the blend stay in float32 under autocast, because bfloat16 cannot represent 96.37 pixels.

    Args:
        frames: (N, C, H, W), floating point.
        where: (N, 2) patch locations (y, x) in [0, 1], as fractions of the largest offset (frame side minus P).
        size: side P of the patches in pixels, at most min(H, W).

    Returns:
        (N, C, P, P), channels-last if the frames are.

    Raises:
        ValueError: the patch is larger than the frame.

    Source: AdaFocus V2 (arXiv 2112.14238) section 3.2; LeapLabTHU/AdaFocusV2, `get_patches_frame` in
    models/adafocus_v2.py. That function uses an affine grid and grid_sample; the values agree to 1e-5.
    """
    height, width = frames.shape[-2:]
    if size > min(height, width):
        raise ValueError(f"a patch of {size} pixels does not fit into frames of {height}x{width}")
    with full_precision(frames):
        dtype = torch.promote_types(frames.dtype, torch.float32)
        free = height - size, width - size  # Python numbers, because copying a new tensor to a GPU would synchronize
        corner = torch.stack([where[:, axis].to(dtype) * free[axis] for axis in (0, 1)], 1)
        # The integer corner is at most (largest offset - 1), so that one more row and column remain for the blend.
        # A diverged policy gives NaN: the patch is cut at 0, and the NaN in the fractions reaches the loss, where the
        # trainer reports it.
        floor = corner.detach().floor().nan_to_num(0.0)
        whole = torch.stack([floor[:, axis].clamp(0, max(free[axis] - 1, 0)) for axis in (0, 1)], 1)
        down, across = (corner - whole).view(-1, 2, 1, 1, 1).unbind(1)
        source = _slices(frames.detach(), whole.long(), size + 1)
        source = source.to(dtype)
        rows = source[:, :, :size] + (source[:, :, 1:] - source[:, :, :size]) * down
        return rows[..., :size] + (rows[..., 1:] - rows[..., :size]) * across


def _slices(frames: Tensor, corner: Tensor, size: int) -> Tensor:
    """Cuts squares (N, C, size, size) at integer corners (N, 2) in pixels; beyond the frame, its border is repeated."""
    height, width = frames.shape[-2:]
    span = torch.arange(size, device=frames.device)
    rows = (corner[:, :1] + span).clamp(max=height - 1)
    columns = (corner[:, 1:] + span).clamp(max=width - 1)
    sample = torch.arange(frames.shape[0], device=frames.device)[:, None, None]
    # Indexing the channels-last view copies all channels of a pixel at once and returns a channels-last tensor.
    pixels = frames.permute(0, 2, 3, 1)
    return pixels[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_rectangles(
    frames: Tensor, where: Tensor, size: int, *, smallest: float, largest: float | None = None
) -> Tensor:
    """Cuts rectangles and resizes them to squares; differentiable with respect to location, height and width.
    A rectangle (y, x, h, w) in [0, 1] is smallest + h * (largest - smallest) pixels high; its width follows from w in
    the same way. Its corner lies at (y, x) times the largest offset (frame side minus rectangle side). Sampling is
    bilinear with half-pixel centers and zeros outside the frame, so an enlarged rectangle at the border includes half a
    pixel of zeros (the mean color). There is no antialiasing; published models depend on that. Runs in float32 under
    autocast.

    Args:
        frames: (N, C, S, S) normalized frames or feature maps, floating point.
        where: (N, 4) rectangles (y, x, height, width) in [0, 1].
        size: side of the resulting squares in pixels.
        smallest, largest: sides in pixels that height or width 0 and 1 stand for (96 and 224 in all published models);
            largest None: the side of the frame.

    Returns:
        the squares (N, C, size, size).

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, `get_patch_grid_scalexy` in
    models/uni_adafocus.py.
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
    """Cuts square patches at integer pixels: the corner is floor(where * (S - P)).

    Args:
        frames: (N, C, S, S) frames.
        where: (N, 2) patch locations (y, x) in [0, 1].
        size: side P of the patches in pixels.

    Returns:
        (N, C, P, P), channels-last.
    """
    side = frames.shape[-1]
    # The product for a grid cell can be a rounding error (1e-5 pixels) below an integer.
    corner = (where.float() * (side - size) + 1e-4).floor().long().clamp(0, side - size)
    return _slices(frames, corner, size)


def boxes(where: Tensor, frame_size: int, *, smallest: float, largest: float | None = None) -> Tensor:
    """Converts locations (..., 2) or rectangles (..., 4) in [0, 1] to top, left, height, width (..., 4) in pixels.

    Locations are those of squares with side `smallest`, as in `crop`; rectangles are those of `crop_rectangles`.
    """
    if where.shape[-1] == 2:
        sides = torch.full_like(where, smallest)
    else:
        sides = smallest + where[..., 2:] * ((largest or frame_size) - smallest)
    return torch.cat([where[..., :2] * (frame_size - sides), sides], -1)
