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
