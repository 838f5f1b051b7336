"""Random numbers that are a pure function of (seed, purpose, epoch, index).

No random state is kept between steps: all random numbers for a clip come from a generator that is seeded with these
four values. A clip is therefore augmented the same way for any number of loader workers and processes, and a resumed
run repeats the uninterrupted one bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """Makes a new random generator for one purpose.

    Args:
        seed: the seed of the run.
        purpose: what the numbers are for, such as "order", "augment" or "diversity"; different purposes give
            independent numbers.
        coordinates: further integers of at least -1, usually the epoch (-1 in evaluation) and the index of the clip.
    """
    entropy = [seed, crc32(purpose.encode()), *(int(value) + 1 for value in coordinates)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def uniform(seed: int, purpose: str, epoch: int, index: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Returns uniform numbers in [0, 1) for each clip, (B, *shape) float32, the same in any batch or process."""
    rows = [generator(seed, purpose, epoch, i).random(shape, dtype=np.float32) for i in index]
    return torch.from_numpy(np.stack(rows))
