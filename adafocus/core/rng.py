"""Random numbers as a pure function of what they are for.

Nothing in the package keeps a random state between steps: every draw about a clip comes from a generator that is made
from (seed, purpose, epoch, index). So the same clip is augmented the same way whatever the number of loader workers,
processes or interruptions (a resumed run repeats the uninterrupted one bit for bit).
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """A fresh generator for one purpose.

    Args:
        seed: the seed of the run.
        purpose: what the numbers are for ("order", "augment", "diversity" ...): draws for different purposes are independent.
        coordinates: epoch, index ...; -1 (evaluation) is allowed.
    """
    entropy = [seed, crc32(purpose.encode()), *(int(value) + 1 for value in coordinates)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def uniform(seed: int, purpose: str, epoch: int, index: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) for each clip of a batch: (B, *shape) float32, the same in any batch or process."""
    rows = [generator(seed, purpose, epoch, i).random(shape, dtype=np.float32) for i in index]
    return torch.from_numpy(np.stack(rows))
