"""Mixup and CutMix of clips: the same for all frames, by (seed, epoch, index), with shares that say what is seen."""

from __future__ import annotations

import pytest
import torch

from adafocus.core.batch import Batch
from adafocus.training.mixing import mix


def batch(indices: list[int], epoch: int = 0) -> Batch:
    """Clips of one brightness each, 20 times their index."""
    frames = torch.tensor([20 * index for index in indices], dtype=torch.uint8)
    frames = frames[:, None, None, None, None].expand(-1, 3, 16, 24, 3).clone()
    labels = torch.tensor([[index, -1, -1] for index in indices])
    return Batch(frames, labels, torch.tensor(indices), epoch, torch.ones(len(indices), dtype=torch.bool))


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_shares_say_how_much_of_each_clip_is_seen(alphas: tuple[float, float]) -> None:
    whole = batch(list(range(12)))
    mixed = mix(whole, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], seed=3)
    assert (mixed.frames == mixed.frames[:, :1]).all()  # all frames of a clip alike
    assert (mixed.mixed.share >= 0.5).all() and mixed.mixed.share.unique().numel() > 6
    own, partner = (20.0 * index for index in (whole.index, whole.index[mixed.mixed.partner]))
    expected = mixed.mixed.share * own + (1 - mixed.mixed.share) * partner
    assert torch.allclose(mixed.frames.float().mean((1, 2, 3, 4)), expected, atol=0.51)
    values = [clip.unique().numel() for clip in mixed.frames]
    assert (max(values) == 1) == (alphas[1] == 0)  # mixup is the same everywhere, CutMix has two parts
    assert (min(values) == 2) == (alphas[0] == 0)


def test_a_clip_is_mixed_by_its_seed_epoch_and_index() -> None:
    def share(indices: list[int], epoch: int = 0, seed: int = 3) -> list[float]:
        mixed = mix(batch(indices, epoch), mixup_alpha=0.4, cutmix_alpha=1.0, seed=seed)
        return mixed.mixed.share.tolist()

    first = share([1, 2, 3])
    assert share([3, 1, 2]) == [first[2], first[0], first[1]]
    assert share([1, 2, 3], epoch=1) != first != share([1, 2, 3], seed=4)
