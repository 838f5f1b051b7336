"""A data set: a small patch of stripes at a random place of a gray video; their direction is the class."""

from __future__ import annotations

import numpy as np


class Stripes:
    """One split; a video is drawn when it is asked for and depends on (split, seed, index) alone.

    Args:
        split: "train" or "val".
        seed: of the run.
        root: `dataset.root`, which drawn videos do not need.
        videos, frames, side: of a split, of a video, and of a frame in pixels; all from `dataset.options`.
    """

    classes = ("horizontal", "vertical")

    def __init__(
        self, split: str, *, seed: int, root: str | None = None, videos: int = 64, frames: int = 8, side: int = 64
    ) -> None:
        self.start, self.frames, self.side = (seed, split == "train"), frames, side
        self.labels = [number % 2 for number in range(videos)]

    def __getitem__(self, index: int) -> np.ndarray:
        """(T, side, side, 3) uint8."""
        rng = np.random.default_rng((*self.start, index))
        video = rng.integers(100, 130, (self.frames, self.side, self.side, 3), dtype=np.uint8)
        patch = np.zeros((16, 16, 3), np.uint8)
        patch[::4], patch[1::4] = (255, 80, 0), (255, 80, 0)
        top, left = rng.integers(self.side - 16, size=2)
        video[:, top : top + 16, left : left + 16] = patch if self.labels[index] == 0 else patch.transpose(1, 0, 2)
        return video
