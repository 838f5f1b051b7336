"""Videos stored as folders of numbered image files (RGB, or x/y optical flow), as TSN, TSM and AdaFocus name them."""

from __future__ import annotations

import io
import os
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from adafocus.data.video import Layout, Video, VideoError

AXES = ("x", "y")
#: Exceptions that Pillow raises for unreadable files.
_BROKEN = (OSError, SyntaxError, Image.DecompressionBombError)


class FrameFolder(Video):
    """A video stored as a folder of image files, with the interface of a video file.

    JPEG files are decoded with libjpeg-turbo (the same pixels as Pillow's, in a third of the time), at a reduced scale
    if a smaller size is requested; other formats are decoded with Pillow.

    Args:
        path: the folder.
        template: pattern of file names, such as `image_{:05d}.jpg`. For optical flow with a file for each direction it
            also has `{axis}` (x or y), and `{video}` if names repeat the folder's name.
        num_frames: number of frames according to the list; None: the number of files that match.
        first: number of the first frame.
        flow: whether frames are optical flow (H, W, 2), from two gray files, or from R and G of one file if the
            template has no axis.

    Raises:
        VideoError: the folder does not exist or has no frame. From `read`: a frame is missing, broken or of another
            size; frames are never replaced by others.
    """

    reader = "frames"

    def __init__(
        self,
        path: str | Path,
        template: str = "image_{:05d}.jpg",
        num_frames: int | None = None,
        first: int = 1,
        *,
        flow: bool = False,
    ) -> None:
        self.path, self.template, self.first = Path(path), template, first
        self.flow, self.channels = flow, 2 if flow else 3
        if not self.path.is_dir():
            raise VideoError(f"{self.path}: no such folder of frames")
        frames = num_frames or self._count()
        if not frames:
            raise VideoError(f"{self.path}: no frame named like {Path(self._file(0)).name}")
        height, width = self._size
        layout = Layout(frames, height, width, turns=0, fps=0.0, doubt="", counted=True, keys=frames)
        super().__init__(self.path, layout, None)

    def _count(self) -> int:
        name = self.template.replace("{axis}", AXES[0]).replace("{video}", self.path.name)
        before, after = re.split(r"\{[^}]*\}", name)
        pattern = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        return sum(1 for entry in self.path.iterdir() if pattern.fullmatch(entry.name))

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Returns (height, width) of the first frame, from its header."""
        path = self._file(0)
        try:
            with _open(path) as file:
                head = file.read(4096)
            if head[:2] == b"\xff\xd8":
                try:
                    return simplejpeg.decode_jpeg_header(head, strict=False)[:2]
                except ValueError:  # the header is very long or damaged; Pillow tells which
                    pass
            with _open(path) as file, Image.open(file) as image:  # reads the header only
                return image.height, image.width
        except _BROKEN as error:
            raise VideoError(f"{path}: frame cannot be read ({type(error).__name__})") from error

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        frames: np.ndarray | None = None
        if (height, width) == self._size:
            frames = np.empty((len(order), height, width, self.channels), np.uint8)
        for position, index in enumerate(order.tolist()):
            image = self._open(index, height, width, None if frames is None else frames[position])
            if frames is None:
                frames = np.empty((len(order), *image.shape), np.uint8)
            if image.shape != frames.shape[1:]:
                raise VideoError(
                    f"{self._file(index)}: {image.shape[1]}x{image.shape[0]} pixels, others have "
                    f"{frames.shape[2]}x{frames.shape[1]}"
                )
            if not np.may_share_memory(image, frames):
                frames[position] = image
        assert frames is not None  # at least one frame is requested
        return frames

    def _file(self, index: int, axis: str = AXES[0]) -> str:
        # Strings instead of Path objects, which would take a tenth of the decoding time.
        return f"{self.path}/{self.template.format(index + self.first, axis=axis, video=self.path.name)}"

    def _open(self, index: int, height: int, width: int, out: np.ndarray | None) -> np.ndarray:
        if self.flow and "{axis}" in self.template:
            return np.concatenate([decode_picture(self._file(index, a), height, width, gray=True) for a in AXES], -1)
        picture = decode_picture(self._file(index), height, width, out=None if self.flow else out)
        return picture[..., : self.channels]


def _open(path: str | Path) -> BinaryIO:
    """Opens a regular file.

    Raises:
        VideoError: it is another kind of file, such as a FIFO, whose reading could block.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise VideoError(f"{path}: frame is not a regular file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def decode_picture(
    path: str | Path, height: int = 0, width: int = 0, *, gray: bool = False, out: np.ndarray | None = None
) -> np.ndarray:
    """Decodes an image file to (H, W, 3) uint8 RGB, or (H, W, 1) if `gray`.

    Args:
        path: the image file.
        height, width: a JPEG may be decoded at 1/2, 1/4, ... of its size, but not below this; 0: at full size.
        out: an array for the result; a JPEG of exactly its size is decoded into it.

    Raises:
        VideoError: the file does not exist or is damaged.
    """
    try:
        with _open(path) as file:
            data = file.read()
        if data[:2] == b"\xff\xd8":
            try:
                if out is not None and simplejpeg.decode_jpeg_header(data)[:2] != out.shape[:2]:
                    out = None
                space = "GRAY" if gray else "RGB"
                return simplejpeg.decode_jpeg(data, space, min_height=height, min_width=width, buffer=out)
            except ValueError:  # an unsupported or damaged JPEG; Pillow tells which
                pass
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
        return pixels[..., None] if gray else pixels
    except _BROKEN as error:
        raise VideoError(f"{path}: frame cannot be read ({type(error).__name__})") from error


def decode_folder(path: Path) -> int:
    """Decodes every image of a folder and returns their number.

    Raises:
        VideoError: an image cannot be decoded.
    """
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise VideoError(f"{path}: no picture in this folder")
    for file in files:
        decode_picture(file)
    return len(files)
