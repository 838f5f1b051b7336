"""Folders of numbered JPEG frames, in the seeds' layouts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from adafocus.data.video import Layout, Video, VideoError


class FrameFolder(Video):
    """A video stored as frames; it is read like any other.

    Args:
        path: the folder.
        template: file names, with one number: `image_{:05d}.jpg`.
        num_frames: frames of the video, as its list says; None counts the files that match.
        first: number of the first frame.

    Raises:
        VideoError: no such folder, or no frame in it. In `read`: a frame is missing, broken or of another size; it is
            never replaced by another one.
    """

    reader = "frames"

    def __init__(
        self, path: str | Path, template: str = "image_{:05d}.jpg", num_frames: int | None = None, first: int = 1
    ) -> None:
        self.path, self.template, self.first = Path(path), template, first
        if not self.path.is_dir():
            raise VideoError(f"{self.path}: no such folder of frames")
        frames = num_frames or self._count()
        if not frames:
            raise VideoError(f"{self.path}: no frame named like {template.format(first)}")
        height, width = self._open(0).shape[:2]
        super().__init__(self.path, Layout(frames, height, width, turns=0, fps=0.0, doubt="", counted=True), None)

    def _count(self) -> int:
        before, after = re.split(r"\{[^}]*\}", self.template)
        pattern = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        return sum(1 for entry in self.path.iterdir() if pattern.fullmatch(entry.name))

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        frames = np.empty((len(order), self.height, self.width, 3), np.uint8)
        for position, index in enumerate(order.tolist()):
            image = self._open(index)
            if image.shape != frames.shape[1:]:
                raise VideoError(
                    f"{self._file(index)}: {image.shape[1]}x{image.shape[0]} pixels, others have {self.width}x{self.height}"
                )
            frames[position] = image
        return frames

    def _file(self, index: int) -> Path:
        return self.path / self.template.format(index + self.first)

    def _open(self, index: int) -> np.ndarray:
        path = self._file(index)
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise VideoError(f"{path}: frame cannot be read ({type(error).__name__})") from error
