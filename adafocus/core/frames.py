"""Which frames of a clip each network sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FramePlan:
    """Which frames of a clip are glanced at, chosen from and focused on.

    Attributes:
        glance: frames that the glance network sees.
        focus: frames that the focus network sees beside those; 0 where it sees the glance frames themselves.
        candidates: frames that focus frames are chosen from; evaluation reads only those that are chosen. 0: nothing is
            chosen. A training clip holds all of them.
        first: positions among the candidates of the frames that are looked at in any case. Empty where the glance frames
            are a set of their own, which then precedes the candidates in a clip.
    """

    glance: int
    focus: int = 0
    candidates: int = 0
    first: tuple[int, ...] = ()

    @property
    def fixed_focus(self) -> int:
        """Focus frames that are read in any case, because nobody chooses them."""
        return 0 if self.candidates else self.focus

    @property
    def seen(self) -> int:
        """Frames of a video that any network sees in evaluation."""
        return self.glance + self.focus

    @property
    def clip(self) -> int:
        """All frames of a training clip."""
        return (0 if self.first else self.glance) + (self.candidates or self.focus)


def coarse_to_fine(segments: int) -> list[int]:
    """The order in which frames are looked at: middle, first, last, then the middles between them, ever finer.

    Source: FrameExit (arXiv 2104.13400). The released rule gives too long a list below three frames; there the order is
    that of time.
    """
    if segments < 3:
        return list(range(segments))
    order = [(segments - 1) // 2, 0, segments - 1]
    parts = 2
    while len(order) < segments:
        borders = [part * (segments - 1) // parts for part in range(parts + 1)]
        for left, right in zip(borders, borders[1:], strict=False):
            middle = (left + right) // 2
            if middle not in order:
                order.append(middle)
        parts *= 2
    return order


def segment_centers(candidates: int, segments: int) -> list[int]:
    """Which candidates the glance network sees in evaluation: the center of each segment of N / G.

    The released code takes every (N // G)-th from 1 on, which is the same for N / G of 2 and 3, and too few frames for 1.
    """
    length = candidates // segments
    return [segment * length + length // 2 for segment in range(segments)]
