"""Decoding on demand: after the glance, evaluation decodes only the frames that the network has chosen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from adafocus.core.batch import BadVideo
from adafocus.data.dataset import ChosenSource
from adafocus.data.video import VideoError


class ChosenFrames:
    """Reads chosen frames of evaluation videos, in threads (the decoders release Python's global lock).

    Args:
        clips: the data set.
        threads: number of threads; 0 or 1 reads in the calling thread.
        pin: whether to return pinned memory, which is copied to a GPU faster.
    """

    def __init__(self, clips: ChosenSource, threads: int = 0, *, pin: bool = False) -> None:
        self.clips, self.pin = clips, pin
        self._pool = ThreadPoolExecutor(threads, "chosen frames") if threads > 1 else None

    def __call__(self, indices: list[int], candidates: Tensor) -> tuple[Tensor, list[BadVideo]]:
        run = map if self._pool is None else self._pool.map
        found = list(run(self._read, indices, candidates.numpy()))
        bad = [item for item in found if isinstance(item, BadVideo)]
        like = next((item for item in found if isinstance(item, Tensor)), None)
        if like is None:  # no video is readable, so the result is not used
            like = torch.zeros(candidates.shape[1], self.clips.size, self.clips.size, 3, dtype=torch.uint8)
        frames = torch.stack([item if isinstance(item, Tensor) else torch.zeros_like(like) for item in found])
        return frames.pin_memory() if self.pin else frames, bad

    def _read(self, index: int, positions: np.ndarray) -> Tensor | BadVideo:
        try:
            return self.clips.choose(index, positions)
        except VideoError as error:
            return BadVideo(index, self.clips.path(index), str(error))
