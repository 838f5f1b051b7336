"""Reads frames of video files by index, with decord, PyAV or torchcodec.

The index of a frame is its position in presentation order in a sequential decode of the first video stream, without the
hidden pre-roll of cut files. Frames are rotated upright. decord's random access is fast but returns wrong frames
on many files (open GOPs, MPEG-4 with B frames, AVI, TS, stream-copied cuts), so the packets of a file are inspected
first, without decoding, and every file that is not known to be safe is read sequentially by PyAV.
"""

from __future__ import annotations

import importlib.util
import stat
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch

from adafocus.core.errors import UserError
from adafocus.data.packets import Layout, VideoError, inspect_packets, open_container, source
from adafocus.data.transforms import resize, short_side_size

#: Output widths at which decord 0.6 fails.
_DECORD_WIDTHS = frozenset((8, 12, 16, 24, 48, 72))


@cache
def installed_readers() -> tuple[str, ...]:
    """Returns the names of the readers that can be imported on this machine."""
    found = []
    for name, module in (("decord", "decord"), ("pyav", "av")):
        if importlib.util.find_spec(module) is not None:
            found.append(name)
    if importlib.util.find_spec("torchcodec") is not None:
        try:  # its import fails without matching versions of torch and FFmpeg
            importlib.import_module("torchcodec.decoders")
        except (RuntimeError, ImportError, OSError):
            return tuple(found)
        found.append("torchcodec")
    return tuple(found)


Opened = TypeVar("Opened", bound="Video")


class Video:
    """An open video, also a context manager: `num_frames`, `height` and `width` (upright), `fps`, `reader`, `read`."""

    reader: str
    channels = 3

    def __init__(self, path: Path, layout: Layout, timeout: float | None, data: bytes | None = None) -> None:
        self.path, self._layout, self.timeout, self.data = path, layout, timeout, data
        self.num_frames, self.height, self.width, self.fps = layout.frames, layout.height, layout.width, layout.fps
        #: Maximal number of frames that must be decoded to read a single one (distance between key frames).
        self.group = layout.frames / layout.keys

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the decoder."""

    def read(self, indices: Sequence[int] | np.ndarray, short_side: int | None = None) -> np.ndarray:
        """Reads frames by index, (N, H, W, 3) uint8, RGB.

        Args:
            indices: N indices in [0, num_frames), in any order, with or without repetition.
            short_side: the shorter side is reduced to this many pixels (never enlarged), the longer one in proportion.

        Raises:
            VideoError: an index is beyond the end, the file is damaged, or decoding exceeds the time limit.
        """
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.num_frames):
            raise VideoError(f"{self.path}: frames {wanted.min()}..{wanted.max()} asked for, it has {self.num_frames}")
        size = self.height, self.width
        if short_side is not None and short_side < min(size):
            size = short_side_size(*size, short_side)
        if not len(wanted):
            return np.empty((0, *size, self.channels), np.uint8)
        order, place = np.unique(wanted, return_inverse=True)
        try:
            frames = self._read_sorted(order, *size)
        except VideoError:
            raise
        except Exception as error:  # every decoder has its own exceptions; decord's are plain Exceptions
            raise VideoError(f"{self.path}: cannot be decoded ({_reason(error)})") from error
        if frames.shape[1:3] != size:
            frames = resize(torch.from_numpy(frames), *size).numpy()
        return frames if len(order) == len(wanted) and (place[:-1] < place[1:]).all() else frames[place]

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        """Reads frames of ascending indices, at this size or at the stored one."""
        raise NotImplementedError


class _Decord(Video):
    reader = "decord"

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        reduced = {} if width in _DECORD_WIDTHS or height == self.height else {"width": width, "height": height}
        decoder = decord.VideoReader(source(self.path, self.data), ctx=decord.cpu(0), num_threads=1, **reduced)
        if len(decoder) != self.num_frames:
            raise VideoError(f"{self.path}: decord counts {len(decoder)} frames, the packets are {self.num_frames}")
        return decoder.get_batch(order.tolist()).asnumpy()


class _Auto(_Decord):
    """Reads with decord, or sequentially with PyAV if decord fails, which is slower but reads more files."""

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        try:
            return super()._read_sorted(order, height, width)
        except Exception:  # decord raises plain Exceptions; if the file is damaged, PyAV raises too
            self.reader = _Sequential.reader
            return _Sequential(self.path, self._layout, self.timeout, self.data)._read_sorted(order, height, width)


class _Sequential(Video):
    """Reads sequentially with PyAV; only the requested frames are converted to RGB."""

    reader = "pyav"

    def __init__(self, path: Path, layout: Layout, timeout: float | None, data: bytes | None = None) -> None:
        super().__init__(path, layout, timeout, data)
        self.group = float(layout.frames)  # reading always starts at the first frame
        if not layout.counted:
            self.num_frames = sum(1 for _ in self.decode())
            if not self.num_frames:
                raise VideoError(f"{path}: no frame can be decoded")

    def decode(self) -> Iterator[Any]:
        """Yields all frames in order, as PyAV's frame objects."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        with open_container(self.path, self.data) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                if deadline is not None and time.monotonic() > deadline:
                    raise VideoError(f"{self.path}: decoding takes longer than {self.timeout:g} s")
                yield frame

    def pictures(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        """Yields all frames in order, (H, W, 3) uint8; the shorter side is reduced to `short_side`, never enlarged."""
        size = self.height, self.width
        if short_side is not None and short_side < min(size):
            size = short_side_size(*size, short_side)
        try:
            for frame in self.decode():
                yield self._picture(frame, *size)
        except VideoError:
            raise
        except Exception as error:  # every decoder has its own exceptions
            raise VideoError(f"{self.path}: damaged ({_reason(error)})") from error

    def _picture(self, frame: Any, height: int, width: int) -> np.ndarray:
        turns = self._layout.turns
        stored = (width, height) if turns % 2 else (height, width)
        # Without a size, FFmpeg's plain conversion is used, which gives the same bits in every reader.
        fits = (frame.height, frame.width) == stored
        reduced = {} if fits else {"height": stored[0], "width": stored[1], "interpolation": "BICUBIC"}
        return np.rot90(frame.to_ndarray(format="rgb24", **reduced), turns)

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        frames = np.empty((len(order), height, width, 3), np.uint8)
        wanted, position = iter(order.tolist()), 0
        target = next(wanted)
        for number, frame in enumerate(self.decode()):
            if number != target:
                continue
            frames[position] = self._picture(frame, height, width)
            position += 1
            target = next(wanted, None)
            if target is None:
                return frames
        raise VideoError(f"{self.path}: ends after fewer frames than its packets promise ({self.num_frames})")


class _TorchCodec(Video):
    reader = "torchcodec"

    def __init__(self, path: Path, layout: Layout, timeout: float | None, data: bytes | None = None) -> None:
        super().__init__(path, layout, timeout, data)
        from torchcodec.decoders import VideoDecoder

        self._decoder = VideoDecoder(
            source(path, data), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        self.num_frames = len(self._decoder)

    def _read_sorted(self, order: np.ndarray, height: int, width: int) -> np.ndarray:
        return self._decoder.get_frames_at(indices=order.tolist()).data.numpy()


_CLASSES: dict[str, type[Video]] = {"decord": _Decord, "pyav": _Sequential, "torchcodec": _TorchCodec}


@overload
def open_video(
    path: str | Path, reader: Literal["pyav"], timeout: float | None = None, *, data: bytes | None = None
) -> _Sequential: ...


@overload
def open_video(
    path: str | Path, reader: str = "auto", timeout: float | None = None, *, data: bytes | None = None
) -> Video: ...


def open_video(
    path: str | Path, reader: str = "auto", timeout: float | None = None, *, data: bytes | None = None
) -> Video:
    """Opens a video file.

    Args:
        path: the file.
        reader: "auto" (decord for files where its random access is correct, else PyAV), or one reader for all files.
        timeout: time limit in seconds for a sequential decode.
        data: the bytes of the video, if it is no file on this disk; `path` is then only its name.

    Raises:
        VideoError: the file is not a readable video.
        UserError: the reader is unknown or not installed.
    """
    path = Path(path)
    if reader != "auto" and reader not in installed_readers():
        raise UserError(f"reader {reader!r} is not installed; choose auto or one of {', '.join(installed_readers())}")
    if data is None:
        check_file(path)
    try:
        layout = inspect_packets(path, data)
        if reader != "auto":
            return _CLASSES[reader](path, layout, timeout, data)
        safe = not layout.doubt and "decord" in installed_readers()
        return (_Auto if safe else _Sequential)(path, layout, timeout, data)
    except VideoError:
        raise
    except Exception as error:  # every decoder has its own exceptions; decord's are plain Exceptions
        raise VideoError(f"{path}: not a readable video ({_reason(error)})") from error


def check_file(path: Path) -> None:
    """Checks that `path` is a regular, non-empty file, else raises VideoError; a FIFO or a device could block."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # also a name that is too long, an endless loop of links, a zero byte
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError))
        reason = "no such file" if absent else getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: {reason}") from error
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(f"{path}: {'is a folder' if stat.S_ISDIR(found.st_mode) else 'is not a regular file'}")
    if not found.st_size:
        raise VideoError(f"{path}: the file is empty")


def inspect_video(path: Path) -> None:
    """Inspects the packets of a file and decodes its first frame; raises VideoError if it is unreadable."""
    check_file(path)
    try:
        inspect_packets(path)
    except VideoError:
        raise
    except Exception as error:  # see open_video
        raise VideoError(f"{path}: not a readable video ({_reason(error)})") from error


def decode_all(path: str | Path) -> int:
    """Decodes every frame in order and returns their number.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    with open_video(path, "pyav") as video:
        try:
            return sum(1 for _ in video.decode())
        except Exception as error:  # see open_video
            raise VideoError(f"{path}: damaged ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
