"""Videos written at test time whose frames carry their number in their pixels."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

BITS = 8


def picture(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """An image with the number in binary as white and black blocks, most significant first, and a marker in the lower
    left corner."""
    image = np.full((height, width, 3), 60, np.uint8)
    for bit in range(BITS):
        value = 235 if number >> (BITS - 1 - bit) & 1 else 16
        image[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = value
    image[3 * height // 4 :, : width // 4] = 235
    return image


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that are encoded in the frames, which may have any size."""
    _, height, width, _ = frames.shape
    row = frames[:, height // 4, :, 0]
    bits = np.stack([row[:, int((bit + 0.5) * width / BITS)] > 128 for bit in range(BITS)], 1)
    return (bits @ (1 << np.arange(BITS)[::-1])).tolist()


def write(
    path: Path,
    count: int = 50,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 96),
    pixels: str = "yuv420p",
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
