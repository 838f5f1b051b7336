"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of the clips of a batch.

`MixUp` and `CutMix` of torchvision.transforms.v2 take float images and sample one share for a whole batch from torch's
global random state. Here clips are uint8, and each clip has its own share, a function of (seed, epoch, index), so that
a resumed run repeats it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adafocus.core.batch import Batch, Mixed
from adafocus.core.rng import generator

#: A clip's share of itself, and its CutMix box (top, left, bottom, right) as fractions of a frame, empty for mixup.
_Draw = tuple[float, tuple[float, float, float, float]]


def mix(batch: Batch, *, mixup_alpha: float, cutmix_alpha: float, seed: int) -> Batch:
    """Mixes every clip with the next one of the batch, all of its frames in the same way.

    Shares are sampled from Beta(alpha, alpha), and the larger part is the clip's own, so that its label stays the most
    probable one. With both alphas above 0, each clip gets mixup or CutMix with equal probability.

    Args:
        batch: the batch of one process and accumulation step, at least two clips.
        mixup_alpha, cutmix_alpha: parameters of the Beta distribution; 0 switches mixup or CutMix off.
        seed: seed of the run.

    Returns:
        the batch with new frames, and with `mixed`.
    """
    drawn = [_draw(seed, batch.epoch, index, mixup_alpha, cutmix_alpha) for index in batch.index.tolist()]
    device, (height, width) = batch.frames.device, batch.frames.shape[-3:-1]
    rounded = np.rint(np.array([box for _, box in drawn]) * [height, width, height, width])
    areas = (rounded[:, 2] - rounded[:, 0]) * (rounded[:, 3] - rounded[:, 1]) / (height * width)
    cut = np.array([any(box) for _, box in drawn])
    shares = np.where(cut, 1 - areas, [share for share, _ in drawn])
    packed = torch.tensor(np.column_stack([shares, cut, rounded]), dtype=torch.float32).to(device, non_blocking=True)
    share, is_cut, box = packed[:, 0], packed[:, 1, None, None] > 0, packed[:, 2:, None, None]
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    inside = (rows >= box[:, 0]) & (rows < box[:, 2]) & (columns >= box[:, 1]) & (columns < box[:, 3])  # (B, H, W)
    # The share of the clip itself in every pixel: 0 or 1 for CutMix, the same everywhere for mixup.
    own = torch.where(is_cut, (~inside).float(), share[:, None, None])
    partner = torch.arange(len(batch), device=device).roll(-1)
    return replace(batch, frames=_blend(batch.frames, partner, own), mixed=Mixed(partner, share))


def _blend(frames: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Blends frames (B, T, H, W, C) uint8 with `partner`; `own` (B, H, W) is the frames' share of each pixel."""
    weight = own[:, None, :, :, None]
    return torch.lerp(frames[partner].float(), frames.float(), weight).round_().to(torch.uint8)


def _draw(seed: int, epoch: int, index: int, mixup_alpha: float, cutmix_alpha: float) -> _Draw:
    rng = generator(seed, "mix", epoch, index)
    cut = cutmix_alpha > 0 and (mixup_alpha == 0 or rng.random() < 0.5)
    alpha = cutmix_alpha if cut else mixup_alpha
    drawn = float(rng.beta(alpha, alpha))
    share = max(drawn, 1 - drawn)
    if not cut:
        return share, (0.0, 0.0, 0.0, 0.0)
    side, (top, left) = (1 - share) ** 0.5, rng.random(2)  # the corner, among all boxes inside the frame
    top, left = top * (1 - side), left * (1 - side)
    return share, (top, left, top + side, left + side)
