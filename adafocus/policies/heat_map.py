"""A heat map over the glance map: a score for every cell, and places at the maxima of the scores.

The policies of the papers regress corners from the flattened glance map, so they must see a subject at every place
before they can point there. Here all cells share the weights that score them: the place moves with the subject, and
there are hundreds of times fewer weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen

_STILL = 0.01  #: added to the motion of a cell, as a share of the clip's mean, before its logarithm
_NEVER = 1e4  #: subtracted from the scores of cells that may not be chosen; finite, so that a softmax stays defined


class HeatMapPolicy(nn.Module):
    """Chooses the places with the highest scores, for each frame or for a whole clip.

    A 1x1 convolution to `hidden` channels, BatchNorm and ReLU; the map is resized to `cells` x `cells`; a 3x3
    convolution, ReLU and a 1x1 convolution give one score for each cell. With `motion`, the logarithm of the motion is
    an input of the 3x3 convolution, and a multiple of the logarithm of the mean motion in the patch around each cell is
    added to the scores. The multiple begins at 1 and the last convolution at 0, so that patches are where most moves
    before anything is learned. Because of the logarithm the softmax below weights cells by their motion, and what is
    learned multiplies it; the motion itself, ten times as large at some cells as at their neighbors, would saturate the
    softmax, so that no gradient would reach what is learned.

    A patch is centered on the mean of the cells within `window` patch sides around the best cell, weighted by the
    softmax of their scores (soft arg-max), so that the loss behind the crop has a gradient with respect to these
    scores. A patch that would reach beyond the frame is moved inside. It runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance map.
        map_size: height and width (h, w) of the glance map.
        patch: side of the patches as a share of the frame's side, below 1.
        segments: number of frames of a clip, which the policy does not depend on.
        hidden: number of channels between the convolutions.
        cells: number of cells of the heat map along each side.
        motion: whether the policy reads the motion of each cell (`cell_motion`).
        peaks: number of places; more than 1 only with `per_clip`. They are returned from left to right.
        apart: smallest distance of their centers in y or x, in patch sides.
        per_clip: False: one place for each frame. True: places for all frames of a clip together, from the mean of
            the frames' scores.
        through_crop: whether the places have a gradient; else the scores learn from another loss.
        window: see above; 0: the soft arg-max is over the whole map, which puts the place between two equal maxima.
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
            raise ValueError(f"peaks={peaks}: there is one place for each frame; per_clip=True allows more")
        self.patch, self.peaks, self.apart, self.per_clip, self.window = patch, peaks, apart, per_clip, window
        #: Height and width of the heat map, and of the motion map that the policy reads.
        self.cells = (cells, cells)
        self.motion, self.through_crop = motion, through_crop
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
        """Places and scores; see `places` and `scores`."""
        scores = self.scores(maps, motion)
        return self.places(scores), scores

    def scores(self, maps: Tensor, motion: Tensor | None = None) -> Tensor:
        """Scores (B, T, H, W) of the cells of each frame, or (B, 1, H, W) of a clip.

        Args:
            maps: (B, T, D, h, w) glance maps.
            motion: (B, T, H, W) as `cell_motion` returns it, if the policy reads motion.
        """
        with full_precision(maps):
            code = self.squeeze(widen(maps).flatten(0, 1))
            code = functional.interpolate(code, self.cells, mode="bilinear", align_corners=False)
            if self.motion:
                if motion is None:
                    raise ValueError("this policy reads motion: pass motion=cell_motion(frames, policy.cells)")
                code = torch.cat([code, (widen(motion).flatten(0, 1)[:, None] + _STILL).log()], 1)
            scores = self.score(code)[:, 0].unflatten(0, maps.shape[:2])
            if self.per_clip:
                scores = scores.mean(1, keepdim=True)
            return scores + self.motion_weight * self.motion_scores(motion) if self.motion else scores

    def motion_scores(self, motion: Tensor) -> Tensor:
        """What motion adds to the scores before anything is learned: (B, T, H, W), or (B, 1, H, W) of a clip."""
        with full_precision(motion):
            motion = widen(motion).mean(1, keepdim=True) if self.per_clip else widen(motion)
            side = 2 * int(self.patch * self.cells[0] / 2) + 1  # of a patch in cells, an odd number
            return (functional.avg_pool2d(motion, side, 1, side // 2, count_include_pad=False) + _STILL).log()

    def places(self, scores: Tensor) -> Tensor:
        """Places (B, T, 2) for scores (B, T, H, W), or (B, peaks, 2) for (B, 1, H, W): corners (y, x) in [0, 1]."""
        if not self.through_crop:
            scores = scores.detach()
        with full_precision(scores):
            centers = peaks(
                scores.flatten(0, 1), self.peaks, window=self.window * self.patch, apart=self.apart * self.patch
            )
            return corners(centers, self.patch).reshape(
                scores.shape[0], -1, 2
            )  # len() would fix the batch of an export


def cell_motion(frames: Tensor, cells: tuple[int, int]) -> Tensor:
    """How much the frames change in each cell, relative to the mean over the clip.

    Absolute differences of successive frames, averaged over the colors and the cell; a frame has the mean of its
    differences to the frames before and after it.

    Args:
        frames: (B, T, C, S, S) frames in temporal order.
        cells: height and width (H, W) of the result.

    Returns:
        (B, T, H, W), without gradient; all zeros for clips of one frame.
    """
    with torch.no_grad(), full_precision(frames):
        if frames.shape[1] == 1:
            return frames.new_zeros(frames.shape[0], 1, *cells)
        frames = widen(frames)
        moved = (frames[:, 1:] - frames[:, :-1]).abs().mean(2)
        moved = functional.interpolate(moved, cells, mode="area")
        both = (torch.cat([moved[:, :1], moved], 1) + torch.cat([moved, moved[:, -1:]], 1)) / 2
        return both / (both.mean((1, 2, 3), keepdim=True) + 1e-6)


def peaks(scores: Tensor, count: int, *, window: float, apart: float) -> Tensor:
    """Centers (N, count, 2) of the highest scores (N, H, W) as shares (y, x) of the frame, from left to right.

    See `HeatMapPolicy` for `window` and `apart`, which are shares of the frame's side here.
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
    """Patch locations (..., 2) for centers (..., 2) in shares of the frame; patches are moved inside the frame."""
    return ((centers - patch / 2) / (1 - patch)).clamp(0, 1)


def scores_at(scores: Tensor, places: Tensor, patch: float) -> Tensor:
    """Scores (N, P), bilinear between the cells of (N, H, W), at the centers of patches at `places` (N, P, 2)."""
    with full_precision(scores):
        centers = widen(places) * (1 - patch) + patch / 2
        grid = (2 * centers - 1).flip(-1)[:, None]
        sampled = functional.grid_sample(scores[:, None], grid, padding_mode="border", align_corners=False)
        return sampled[:, 0, 0]
