"""A cache of decoded videos in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adafocus.data.transforms import short_side_size


class FrameCache:
    """Caches all frames of the videos that are read first, up to a number of bytes, for later epochs.

    Nothing is evicted: a shuffled epoch reads every video once, so an evicted video would be needed again.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._videos: dict[str, np.ndarray] = {}

    def read(
        self, path: str, opened: Callable[[], Any], choose: Callable[[int], np.ndarray], short_side: int | None
    ) -> np.ndarray:
        """Returns frames of a video, from memory or from the file.

        Args:
            path: key of the video in the cache.
            opened: opens the video.
            choose: function from the video's number of frames to the indices of the frames to read.
            short_side: shorter side to decode at; None: as stored.
        """
        frames = self._videos.get(path)
        if frames is not None:
            return frames[choose(len(frames))]
        with opened() as video:
            height, width = video.height, video.width
            if short_side is not None and short_side < min(height, width):
                height, width = short_side_size(height, width, short_side)
            size = video.num_frames * height * width * video.channels
            if self.used + size > self.limit:
                return video.read(choose(video.num_frames), short_side)
            frames = video.read(range(video.num_frames), short_side)
        self._videos[path] = frames
        self.used += size
        return frames[choose(len(frames))]
