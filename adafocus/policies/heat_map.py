"""A policy of this package for AdaFocus V2: scores every cell of a heat map and puts patches at the highest scores.

The policies of the papers regress corners from the flattened glance map, so in training they must see a subject at
every position to find it there. Here all cells share the weights that score them, so the patch follows the subject, and
there are hundreds of times fewer weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen

_STILL = 0.01  #: added to the motion of a cell, relative to the clip's mean, before its logarithm is taken
_NEVER = 1e4  #: subtracted from the scores of cells that may not be chosen; finite, so that a softmax stays defined


class HeatMapPolicy(nn.Module):
    """Chooses the patch locations with the highest scores, for each frame or for a whole clip.

    A 1x1 convolution to `hidden` channels, BatchNorm and ReLU; the map is resized to `cells` x `cells`; a 3x3
    convolution, ReLU and a 1x1 convolution give one score for each cell. With `motion`, the logarithm of the motion is
    an input of the 3x3 convolution, and the logarithm of the mean motion in the patch around each cell, times a learned
    factor, is added to the scores. The factor is initially 1 and the last convolution 0, so that an untrained policy
    puts patches where the motion is largest. With the logarithm, the softmax below weights cells by their motion times
    a learned weight; the motion itself, ten times as large at some cells as at their neighbors, would saturate the
    softmax and leave no gradient.

    A patch is centered on the mean of the cells within `window` patch sides around the best cell, weighted by the
    softmax of their scores (soft arg-max), so that the loss behind the crop has a gradient with respect to these
    scores. A patch that would reach beyond the frame is moved inside. It runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance map.
        map_size: height and width (h, w) of the glance map.
        patch: side of the patches as a share of the frame's side, below 1.
        segments: number of frames of a clip; not used, because this policy works for any number.
        hidden: number of channels between the convolutions.
        cells: number of cells of the heat map along each side.
        motion: whether the policy reads the motion of each cell (`cell_motion`).
        learned: whether the policy learns; False: it has no parameters, and patches are where the motion is largest,
            which needs `motion`.
        peaks: number of patch locations, returned from left to right; more than 1 only with `per_clip`.
        apart: smallest distance of the patches' centers in y or x, in patch sides.
        per_clip: False: one location for each frame. True: locations for all frames of a clip, from the mean of the
            frames' scores.
        through_crop: whether the locations have a gradient; else the scores need another loss.
        window: reach of the soft arg-max in patch sides; 0: the whole map, which puts the patch between two equal
            maxima.
    """

    def __init__(
        self,
        channels: int,
        map_size: tuple[int, int],
        *,
        patch: float,
        segments: int | None = None,
        hidden: int = 32,
        cells: int = 16,
        motion: bool = False,
        learned: bool = True,
        peaks: int = 1,
        apart: float = 1.0,
        per_clip: bool = False,
        window: float = 0.5,
        through_crop: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < patch < 1:
            raise ValueError(f"patch={patch:g} must be a share of the frame's side between 0 and 1")
        if peaks > 1 and not per_clip:
            raise ValueError(f"peaks={peaks}: there is one location for each frame; per_clip=True allows more")
        if not learned and not motion:
            raise ValueError("a policy that does not learn needs motion=True")
        self.patch, self.peaks, self.apart, self.per_clip, self.window = patch, peaks, apart, per_clip, window
        #: Height and width of the heat map, and of the motion map that the policy reads.
        self.cells = (cells, cells)
        self.motion, self.through_crop, self.learned = motion, through_crop, learned
        if not learned:
            return
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)
        )
        last = nn.Conv2d(hidden, 1, 1)
        self.score = nn.Sequential(nn.Conv2d(hidden + motion, hidden, 3, padding=1), nn.ReLU(inplace=True), last)
        if motion:
            self.motion_weight = nn.Parameter(torch.ones(()))
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, maps: Tensor, motion: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the patch locations (result of `places`) and the scores that they were chosen from (`scores`)."""
        scores = self.scores(maps, motion)
        return self.places(scores), scores

    def scores(self, maps: Tensor, motion: Tensor | None = None) -> Tensor:
        """Computes scores (B, T, H, W) of the cells of each frame, or (B, 1, H, W) of a clip with `per_clip`.

        Args:
            maps: (B, T, D, h, w) glance maps.
            motion: (B, T, H, W) as `cell_motion` returns it, if the policy reads motion.
        """
        if not self.motion:
            motion = None
        elif motion is None:
            raise ValueError("this policy reads motion: pass motion=cell_motion(frames, policy.cells)")
        if motion is not None and not self.learned:
            return self.motion_scores(motion)
        with full_precision(maps):
            code = self.squeeze(widen(maps).flatten(0, 1))
            code = functional.interpolate(code, self.cells, mode="bilinear", align_corners=False)
            if motion is not None:
                code = torch.cat([code, (widen(motion).flatten(0, 1)[:, None] + _STILL).log()], 1)
            scores = self.score(code)[:, 0].unflatten(0, maps.shape[:2])
            if self.per_clip:
                scores = scores.mean(1, keepdim=True)
            return scores if motion is None else scores + self.motion_weight * self.motion_scores(motion)

    def motion_scores(self, motion: Tensor) -> Tensor:
        """Returns the motion term of the scores, without its learned factor: (B, T, H, W), or (B, 1, H, W) per clip."""
        with full_precision(motion):
            motion = widen(motion).mean(1, keepdim=True) if self.per_clip else widen(motion)
            return (mean_nearby(motion, self.patch) + _STILL).log()

    def places(self, scores: Tensor) -> Tensor:
        """Chooses patch locations (B, T, 2) by scores (B, T, H, W), or (B, peaks, 2) by scores (B, 1, H, W)."""
        if not self.through_crop:
            scores = scores.detach()
        with full_precision(scores):
            centers = peaks(
                scores.flatten(0, 1), self.peaks, window=self.window * self.patch, apart=self.apart * self.patch
            )
            return corners(centers, self.patch).reshape(
                scores.shape[0], -1, 2
            )  # len() would fix the batch size of an exported program


def cell_motion(frames: Tensor, cells: tuple[int, int]) -> Tensor:
    """Measures how much the frames change in each cell, relative to the mean over the clip.

    These are absolute differences of successive frames, averaged over the colors and the pixels of the cell; a frame
    has the mean of its differences to the frames before and after it.

    Args:
        frames: (B, T, C, S, S) frames in temporal order.
        cells: height and width (H, W) of the result.

    Returns:
        the motion (B, T, H, W), without gradient; all zeros for clips of one frame.
    """
    with torch.no_grad(), full_precision(frames):
        if frames.shape[1] == 1:
            return frames.new_zeros(frames.shape[0], 1, *cells)
        frames = widen(frames)
        moved = (frames[:, 1:] - frames[:, :-1]).abs().mean(2)
        moved = functional.interpolate(moved, cells, mode="area")
        both = (torch.cat([moved[:, :1], moved], 1) + torch.cat([moved, moved[:, -1:]], 1)) / 2
        return both / (both.mean((1, 2, 3), keepdim=True) + 1e-6)


def mean_nearby(motion: Tensor, patch: float) -> Tensor:
    """Averages motion (B, T, H, W) over the patch around each cell; `patch` is its side as a share of the frame's."""
    side = 2 * int(patch * motion.shape[-1] / 2) + 1  # in cells, an odd number
    return functional.avg_pool2d(motion, side, 1, side // 2, count_include_pad=False)


def peaks(scores: Tensor, count: int, *, window: float, apart: float) -> Tensor:
    """Finds the centers (N, count, 2) of the highest scores (N, H, W): shares (y, x) of the frame, from left to right.

    Args:
        scores: the heat maps.
        count: number of centers per map.
        window: reach of the soft arg-max around the best cell, as a share of the frame's side; 0: the whole map.
        apart: smallest distance of the centers in y or x, as a share of the frame's side.
    """
    height, width = scores.shape[1:]
    rows = (torch.arange(height, device=scores.device, dtype=scores.dtype) + 0.5) / height
    columns = (torch.arange(width, device=scores.device, dtype=scores.dtype) + 0.5) / width
    cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)  # (H * W, 2)
    flat, taken, found = scores.flatten(1), torch.zeros_like(scores.flatten(1)), []
    for _ in range(count):
        best = cells[(flat - taken).argmax(1)]
        away = (cells - best[:, None]).abs().amax(-1)
        near = flat - taken - _NEVER * (away > window) if window else flat - taken
        found.append(near.softmax(1) @ cells)
        taken = taken + _NEVER * (away < apart)
    centers = torch.stack(found, 1)
    if count == 1:
        return centers
    return centers.gather(1, centers[..., 1:].argsort(1).expand(-1, -1, 2))


def corners(centers: Tensor, patch: float) -> Tensor:
    """Converts centers (..., 2) in shares of the frame to locations (..., 2) of patches that lie inside the frame."""
    return ((centers - patch / 2) / (1 - patch)).clamp(0, 1)


def scores_at(scores: Tensor, places: Tensor, patch: float) -> Tensor:
    """Interpolates scores (N, H, W) bilinearly at the centers (N, P) of the patches at locations `places` (N, P, 2)."""
    with full_precision(scores):
        centers = widen(places) * (1 - patch) + patch / 2
        grid = (2 * centers - 1).flip(-1)[:, None]
        sampled = functional.grid_sample(scores[:, None], grid, padding_mode="border", align_corners=False)
        return sampled[:, 0, 0]
