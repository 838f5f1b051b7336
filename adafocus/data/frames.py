"""Folders of numbered JPEG frames, in the seeds' layouts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from adafocus.data.transforms import short_side_size
from adafocus.data.video import VideoError


class FrameFolder:
    """A video stored as frames; the same face as `video.Video`.

    Args:
        path: the folder.
        template: file names, with one number: `image_{:05d}.jpg`.
        num_frames: frames of the video, as its list says; None counts the files that match.
        first: number of the first frame.

    Raises:
        VideoError: no such folder, or no frame in it.
    """

    fps = 0.0  # nobody has noted it
    reader = "frames"

    def __init__(
        self, path: str | Path, template: str = "image_{:05d}.jpg", num_frames: int | None = None, first: int = 1
    ) -> None:
        self.path, self.template, self.first = Path(path), template, first
        if not self.path.is_dir():
            raise VideoError(f"{self.path}: no such folder of frames")
        self.num_frames = num_frames or self._count()
        if not self.num_frames:
            raise VideoError(f"{self.path}: no frame named like {template.format(first)}")
        self.height, self.width = self._open(0).shape[:2]

    def _count(self) -> int:
        before, after = re.split(r"\{[^}]*\}", self.template)
        pattern = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        return sum(1 for entry in self.path.iterdir() if pattern.fullmatch(entry.name))

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read(self, indices: Sequence[int] | np.ndarray, short_side: int | None = None) -> np.ndarray:
        """Frames by 0-based index: (N, H, W, 3) uint8, RGB; see `video.Video.read`. A frame is decoded once.

        Raises:
            VideoError: a frame is missing, broken or of another size; it is never replaced by another one.
        """
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.num_frames):
            raise VideoError(f"{self.path}: frames {wanted.min()}..{wanted.max()} asked for, it has {self.num_frames}")
        size = self.height, self.width
        if short_side is not None and short_side < min(size):
            size = short_side_size(*size, short_side)
        order, place = np.unique(wanted, return_inverse=True)
        frames = np.empty((len(order), *size, 3), np.uint8)
        for position, index in enumerate(order.tolist()):
            image = self._open(index, size)
            if image.shape[:2] != size:
                raise VideoError(
                    f"{self._file(index)}: {image.shape[1]}x{image.shape[0]} pixels, others have {size[1]}x{size[0]}"
                )
            frames[position] = image
        return frames if np.array_equal(place, np.arange(len(wanted))) else frames[place]

    def _file(self, index: int) -> Path:
        return self.path / self.template.format(index + self.first)

    def _open(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        path = self._file(index)
        try:
            with Image.open(path) as image:
                picture = image.convert("RGB")
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise VideoError(f"{path}: frame cannot be read ({type(error).__name__})") from error
        if size is not None and size != (self.height, self.width):
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(picture)
