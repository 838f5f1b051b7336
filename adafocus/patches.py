"""Coordinates to pixels: where a patch is cut out of a frame."""

from __future__ import annotations

import torch
from torch import Tensor

from adafocus.precision import full_precision


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
    sample = torch.arange(len(frames), device=frames.device)[:, None, None]
    # Indexing the pixel-major view keeps the channels of a pixel together: one wide copy a pixel, and channels-last out.
    pixels = frames.permute(0, 2, 3, 1)
    return pixels[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
