"""Overlapping windows of a video that is decoded once, in order. Only the frames of the present windows are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adafocus.data.stream import Stream
from adafocus.data.view import View

WINDOWS_AT_ONCE = 16  # windows of one forward pass


@dataclass(frozen=True)
class Grid:
    """Where windows begin and which frames they show, in frames of the video.

    A window is a clip of `size` consecutive frames. `size` and `step` are multiples of the distance of two glance
    frames, so that overlapping windows glance at the same frames.

    Attributes:
        size: number of frames that a window spans.
        step: number of frames from one window to the next; it divides `size`.
        offsets: (T,) the frames that a window shows, from its first, in the order of a training clip.
    """

    size: int
    step: int
    offsets: np.ndarray

    @staticmethod
    def of(view: View, glance: int, rate: float, seconds: float, overlap: int) -> Grid:
        """The grid of windows nearest to what is asked for.

        Args:
            view: how the network sees a clip.
            glance: number of glance frames (or frames) of the network.
            rate: frames per second of the video.
            seconds: length of a window.
            overlap: how many windows show each moment; rounded down to a divisor of `glance`.
        """
        distance = max(1, round(seconds * rate / glance))
        overlap = max(number for number in range(1, min(overlap, glance) + 1) if glance % number == 0)
        size = distance * glance
        return Grid(size, size // overlap, view.even_clip(size))

    @property
    def overlap(self) -> int:
        """Number of windows that show each moment."""
        return self.size // self.step

    def wants(self) -> Callable[[int], bool]:
        """A function that says whether any window shows a frame."""
        first = np.full(self.step, np.iinfo(np.int64).max)
        np.minimum.at(first, self.offsets % self.step, self.offsets)
        return lambda number: bool(number >= first[number % self.step])


@dataclass
class Windows:
    """Some consecutive windows of a video.

    Attributes:
        numbers: (B, T) the frames that each window shows.
        frames: frame number -> (S, S, 3) uint8.
        times: seconds at which each step begins whose last window is among these, and at last where the next one would
            begin: B + 1 times, more of them at the end of the video.
        keep: frames before this number are in no later window.
    """

    numbers: Tensor
    frames: dict[int, Tensor]
    times: list[float]
    keep: int

    def __len__(self) -> int:
        return len(self.numbers)

    def stack(self, numbers: Tensor) -> Tensor:
        """Frames (B', n, S, S, 3) uint8 by number (B', n)."""
        found = torch.stack([self.frames[number] for number in numbers.flatten().tolist()])
        return found.unflatten(0, tuple(numbers.shape))


@dataclass
class Reader:
    """Cuts a stream into windows.

    Args:
        stream: the video.
        grid: where the windows are.
        view: makes frames of the network's size.

    Attributes:
        count: number of frames that were decoded.
        seconds: time of the last of them.
        held: largest number of frames that were in memory at a time.
    """

    stream: Stream
    grid: Grid
    view: View
    count: int = 0
    seconds: float = 0.0
    held: int = 0
    _frames: dict[int, Tensor] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Windows]:
        """Yields `WINDOWS_AT_ONCE` windows at a time. A window beyond the end shows the last frame again."""
        size, step, wanted = self.grid.size, self.grid.step, self.grid.wants()
        times: list[float] = []
        first = 0  # the first frame of the present windows
        for number, (seconds, picture) in enumerate(self.stream):
            self.count, self.seconds = number + 1, seconds
            if number % step == 0:
                times.append(seconds)
            if wanted(number):
                self._frames[number] = self._seen(picture)
                self.held = max(self.held, len(self._frames))
            if number == first + size + (WINDOWS_AT_ONCE - 1) * step:
                yield self._windows(first, WINDOWS_AT_ONCE, times[: WINDOWS_AT_ONCE + 1])
                first += WINDOWS_AT_ONCE * step
                del times[:WINDOWS_AT_ONCE]
        if times:
            left = max(0, -(-(self.count - first - size) // step)) + 1
            yield self._windows(first, left, [*times, self.seconds + 1 / self.stream.rate])

    def _windows(self, first: int, count: int, times: list[float]) -> Windows:
        starts = first + self.grid.step * np.arange(count)
        numbers = torch.from_numpy(starts[:, None] + self.grid.offsets)
        keep = first + count * self.grid.step
        found = Windows(numbers.clamp(max=max(self._frames)), dict(self._frames), times, keep)
        self._frames = {number: frame for number, frame in self._frames.items() if number >= keep}
        return found

    def _seen(self, picture: Callable[[int | None], np.ndarray]) -> Tensor:
        frame = torch.from_numpy(np.ascontiguousarray(picture(self.view.decode_short_side)))
        return self.view.evaluation(frame[None])[0, 0]
