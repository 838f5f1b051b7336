"""Videos given as arrays in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adafocus.data.video import Layout, Video, VideoError


class ArrayVideo(Video):
    """A video given as an array of all its frames, with the interface of a video file.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        name: name of the video in messages.

    Raises:
        VideoError: the array has another type or shape, or no frames.
    """

    reader = "array"

    def __init__(self, frames: np.ndarray, name: str) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise VideoError(
                f"{name}: an array of type {frames.dtype} and shape {frames.shape}; a video is uint8 (T, H, W, 3)"
            )
        self.frames = frames
        count, height, width, _ = frames.shape
        layout = Layout(count, height, width, turns=0, fps=0.0, doubt="", counted=True, keys=count)
        super().__init__(Path(name), layout, None)

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        return self.frames[order]
