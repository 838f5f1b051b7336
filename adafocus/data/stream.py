"""Reads frames one by one from a file or a camera, and writes frames to a video file."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from adafocus.data.video import VideoError

#: Operating system -> FFmpeg's input format for cameras, and its name for camera number n.
_CAMERAS = {"Linux": ("v4l2", "/dev/video{}"), "Darwin": ("avfoundation", "{}"), "Windows": ("dshow", "video={}")}


def stream_frames(source: str | Path, every: int = 1) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (time in seconds, upright frame (H, W, 3) uint8 RGB) as the frames arrive.

    Args:
        source: a video file, or the index of a camera.
        every: yields only every n-th frame.

    Raises:
        VideoError: the source cannot be opened, or is damaged.
    """
    import av

    name, system = str(source), None
    if name.isdigit():
        system, pattern = _CAMERAS.get(platform.system(), _CAMERAS["Linux"])
        name = pattern.format(name)
    elif not Path(name).is_file():
        raise VideoError(f"{name}: no such file, and not the index of a camera")
    try:
        with av.open(name, format=system) as container:
            if not container.streams.video:
                raise VideoError(f"{name}: no video stream in it")
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    image = frame.to_ndarray(format="rgb24")
                    yield float(frame.time or 0.0), np.rot90(image, (int(frame.rotation) // 90) % 4)
    except av.error.FFmpegError as error:
        raise VideoError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float = 25.0) -> int:
    """Writes frames (H, W, 3) uint8 of equal size as an H.264 video; returns their number. Odd sides lose a pixel."""
    import av

    count, stream = 0, None
    with av.open(str(path), "w") as container:
        for image in frames:
            height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            packet = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            container.mux(stream.encode(packet))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count
