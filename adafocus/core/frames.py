"""`FramePlan`: how many frames of a clip the glance network and the focus network see, and which are candidates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FramePlan:
    """Numbers of glance frames, candidates and focus frames of a clip.

    Attributes:
        glance: number of frames that the glance network sees.
        focus: number of frames that only the focus network sees; 0 if it sees the glance frames.
        candidates: number of frames that the focus frames are chosen from; 0 if no frames are chosen. A training clip
            holds all candidates; evaluation decodes only the chosen ones.
        first: positions among the candidates of the frames that are always decoded (the glance frames of Uni-AdaFocus
            on plain backbones). Empty if the glance frames are a separate set, which then precedes the candidates in a
            clip.
    """

    glance: int
    focus: int = 0
    candidates: int = 0
    first: tuple[int, ...] = ()

    @property
    def fixed_focus(self) -> int:
        """Number of focus frames at fixed positions: all of them if no frames are chosen, else 0."""
        return 0 if self.candidates else self.focus

    @property
    def seen(self) -> int:
        """Number of frames per video that the networks process in evaluation."""
        return self.glance + self.focus

    @property
    def clip(self) -> int:
        """Number of frames in a training clip, all candidates included."""
        return (0 if self.first else self.glance) + (self.candidates or self.focus)


def coarse_to_fine(segments: int) -> list[int]:
    """Returns the coarse-to-fine order of `segments` frames: middle, first, last, then midpoints between those.

    Source: FrameExit (arXiv 2104.13400), as used by AdaFocus V2. For fewer than three frames, where its rule gives too
    many, the result is the temporal order.
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
    """Returns the positions of G glance frames among N candidates in evaluation: centers of segments of N // G.

    Uni-AdaFocus (models/uni_adafocus.py, `AdaFocus.forward`) takes every (N // G)-th candidate from position 1 on,
    which is the same for N / G = 2 or 3, but one frame too few for N / G = 1.
    """
    length = candidates // segments
    return [segment * length + length // 2 for segment in range(segments)]
