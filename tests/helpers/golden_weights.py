"""Weights and inputs of the golden cases, each a function of its name and shape: no file holds them.

The golden figures were computed with these weights and inputs, so no formula here may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _noise(name: str, shape: Sequence[int]) -> np.ndarray:
    return _rng(name).standard_normal(tuple(shape)).astype(np.float32)


def _rng(name: str) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def weight(key: str, shape: Sequence[int]) -> Tensor:
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    noise = _noise(key, shape)
    if leaf == "running_var":
        value = 0.5 + np.abs(noise)
    elif leaf == "running_mean":
        value = 0.1 * noise
    elif len(shape) > 1:
        value = noise * np.float32(np.sqrt(1.8 / int(np.prod(shape[1:]))))
    else:
        value = 1.0 + 0.1 * noise if leaf.startswith("weight") else 0.05 * noise
    return torch.from_numpy(np.asarray(value, np.float32))


def state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The weights of a checkpoint from its keys and shapes."""
    return {key: weight(key, shape) for key, shape in shapes.items()}


def array(name: str, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(_noise("input:" + name, shape))


def frames(name: str, shape: Sequence[int]) -> Tensor:
    """Normalized frames of the given shape: four sine waves per plane and a little noise."""
    *lead, height, width = shape
    rng = _rng("image:" + name)
    y, x = (np.linspace(0.0, 1.0, side, dtype=np.float32) for side in (height, width))
    planes = np.zeros((int(np.prod(lead)), height, width), np.float32)
    for plane in planes:
        for _ in range(4):
            fx, fy, phase, gain = rng.uniform((0.5, 0.5, 0.0, 0.4), (6.0, 6.0, 2 * np.pi, 1.0))
            angle = 2 * np.pi * (np.float32(fx) * x[None] + np.float32(fy) * y[:, None]) + np.float32(phase)
            plane += np.float32(gain) * np.sin(angle).astype(np.float32)
        plane += 0.05 * rng.standard_normal((height, width)).astype(np.float32)
    return torch.from_numpy(planes.reshape(tuple(shape)))
