"""Example of a data set: gray videos with a small striped square at a random position; the direction of the stripes is
the class."""

from __future__ import annotations

import numpy as np


class Stripes:
    """One split of the data set. A video is rendered on access and depends only on (split, seed, index).

    Args:
        split: "train" or "val".
        seed: the seed of the run.
        root: `dataset.root`; ignored, because the videos are synthetic.
        videos, frames, side: number of videos in the split, of frames in a video, and side of a frame in pixels; all
            from `dataset.options`.
    """

    classes = ("horizontal", "vertical")

    def __init__(
        self, split: str, *, seed: int, root: str | None = None, videos: int = 64, frames: int = 8, side: int = 64
    ) -> None:
        self.start, self.frames, self.side = (seed, split == "train"), frames, side
        self.labels = [number % 2 for number in range(videos)]

    def __getitem__(self, index: int) -> np.ndarray:
        """The frames of a video, (T, side, side, 3) uint8."""
        rng = np.random.default_rng((*self.start, index))
        video = rng.integers(100, 130, (self.frames, self.side, self.side, 3), dtype=np.uint8)
        patch = np.zeros((16, 16, 3), np.uint8)
        patch[::4], patch[1::4] = (255, 80, 0), (255, 80, 0)
        top, left = rng.integers(self.side - 16, size=2)
        video[:, top : top + 16, left : left + 16] = patch if self.labels[index] == 0 else patch.transpose(1, 0, 2)
        return video
