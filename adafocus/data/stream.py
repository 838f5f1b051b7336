"""Reads frames one by one from a file or a camera, and writes frames to a video file."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adafocus.data.transforms import short_side_size
from adafocus.data.video import VideoError

#: Operating system -> FFmpeg's input format for cameras, and its name for camera number n.
_CAMERAS = {"Linux": ("v4l2", "/dev/video{}"), "Darwin": ("avfoundation", "{}"), "Windows": ("dshow", "video={}")}


#: Converts a decoded frame to (H, W, 3) uint8 RGB, upright; a number reduces its shorter side to so many pixels.
Picture = Callable[[int | None], np.ndarray]


class Stream:
    """The frames of a file or camera in order, each decoded once. A context manager.

    Args:
        source: a video file, or the index of a camera.

    Attributes:
        rate: frames per second, as the container says; 25 if it does not.
        duration: seconds; None if the container does not say.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: str | Path) -> None:
        import av

        system: str | None = None
        self.name = str(source)
        address = self.name
        if address.isdigit():
            system, pattern = _CAMERAS.get(platform.system(), _CAMERAS["Linux"])
            address = pattern.format(address)
        elif not Path(address).is_file():
            raise VideoError(f"{address}: no such file, and not the index of a camera")
        try:
            self._container = av.open(address, format=system)
        except av.error.FFmpegError as error:
            raise self._error(error) from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{self.name}: no video stream in it")
        stream = self._container.streams.video[0]
        self.rate = float(stream.average_rate or 0) or 25.0
        self.duration = None if self._container.duration is None else self._container.duration / av.time_base

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float, Picture]]:
        """Yields (seconds since the first frame, function that converts the frame).

        A frame that is not converted costs its decoding only.

        Raises:
            VideoError: it is damaged.
        """
        import av

        first = None
        try:
            for frame in self._container.decode(video=0):
                seconds = float(frame.time or 0.0)
                first = seconds if first is None else first
                yield seconds - first, partial(_picture, frame)
        except av.error.FFmpegError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> VideoError:
        return VideoError(f"{self.name}: cannot be read ({type(error).__name__}: {error})")


def _picture(frame: Any, short_side: int | None = None) -> np.ndarray:
    reduced = {}
    if short_side is not None and short_side < min(frame.height, frame.width):
        height, width = short_side_size(frame.height, frame.width, short_side)
        reduced = {"height": height, "width": width, "interpolation": "BICUBIC"}
    return np.rot90(frame.to_ndarray(format="rgb24", **reduced), (int(frame.rotation) // 90) % 4)


def stream_frames(source: str | Path, every: int = 1) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds since the first frame, upright frame (H, W, 3) uint8 RGB) as the frames arrive.

    Args:
        source: a video file, or the index of a camera.
        every: yields only every n-th frame.

    Raises:
        VideoError: the source cannot be opened, or is damaged.
    """
    with Stream(source) as stream:
        for number, (seconds, picture) in enumerate(stream):
            if number % every == 0:
                yield seconds, picture(None)


class VideoWriter:
    """Writes frames as an H.264 video. A context manager.

    Args:
        path: the file.
        rate: frames per second.

    Attributes:
        count: number of frames written.
    """

    def __init__(self, path: Path, rate: float = 25.0) -> None:
        import av

        self.count, self._rate = 0, rate
        self._stream: Any = None
        self._container = av.open(str(path), "w")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def add(self, image: np.ndarray) -> None:
        """Adds a frame (H, W, 3) uint8; all have one size, and odd sides lose a pixel."""
        import av

        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=Fraction(self._rate).limit_denominator(1000))
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        packet = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(packet))
        self.count += 1


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float = 25.0) -> int:
    """Writes frames (H, W, 3) uint8 of equal size as an H.264 video and returns their number; odd sides lose a
    pixel."""
    with VideoWriter(path, rate) as writer:
        for image in frames:
            writer.add(image)
    return writer.count
