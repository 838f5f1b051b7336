"""What happens to a training clip after its frames are read: RandAugment, and the logits of a teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adafocus.data.dataset import EVALUATION, ArrayClips, collate
from adafocus.data.view import View

CLASSES = 4


def clips(**view) -> ArrayClips:
    """Eight videos that stand still, so that every frame of a clip must look alike whatever is done to it."""
    stills = np.random.default_rng(0).integers(0, 256, (8, 1, 40, 48, 3), dtype=np.uint8)
    view = {"segments": 4, "size": 32, "short_side": 36, "flip": 0.0, **view}
    return ArrayClips(stills.repeat(6, 1), np.arange(8) % CLASSES, View(**view), seed=1)


def test_all_frames_of_a_clip_are_augmented_alike_by_epoch_and_index() -> None:
    made, plain = clips(randaugment_ops=2), clips()
    before = torch.random.get_rng_state()
    for index in range(8):
        clip = made[0, index].frames
        assert clip.shape == (4, 32, 32, 3) and clip.dtype == torch.uint8 and clip.is_contiguous()
        assert (clip == clip[:1]).all()
        assert torch.equal(clip, made[0, index].frames)
    assert torch.equal(torch.random.get_rng_state(), before)  # what others draw is not disturbed
    changed = [not torch.equal(made[0, index].frames, plain[0, index].frames) for index in range(8)]
    assert sum(changed) > 5  # identity is one of the operations
    assert any(not torch.equal(made[0, index].frames, made[1, index].frames) for index in range(8))
    assert torch.equal(made[EVALUATION, 3].frames, plain[EVALUATION, 3].frames)


def test_no_operation_mirrors_a_frame() -> None:
    """A mirrored frame would need other labels (dataset.flip_pairs)."""
    from torchvision.transforms import v2

    names = set(v2.RandAugment._AUGMENTATION_SPACE)
    geometric = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    colors = {"Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"}
    assert names == {"Identity", *geometric, *colors}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_flip_that_exchanges_classes_exchanges_the_teachers_logits(flip: float) -> None:
    made = clips(flip=flip, flip_labels={0: 1, 1: 0})
    assert made[0, 2].teacher is None
    made.teacher = torch.arange(8 * CLASSES).float().view(8, CLASSES)
    batch = collate([made[0, index] for index in (2, 5)])
    order = [1, 0, 2, 3] if flip else [0, 1, 2, 3]
    assert torch.equal(batch.teacher, made.teacher[[2, 5]][:, order])
    assert batch.labels[:, 0].tolist() == ([2, 0] if flip else [2, 1])
    assert collate([made[EVALUATION, 0]]).teacher is None
