"""From probabilities over time to spans, step by step: hysteresis, merging, and a shortest length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A stretch of a video with one label.

    Attributes:
        label: class name.
        start, end: seconds from the first frame.
        confidence: mean probability of the label between them.
    """

    label: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Rules:
    """How probabilities become spans.

    Attributes:
        enter: probability at which a span of a class begins.
        leave: probability below which it ends; it also reaches back to where the class rose above this value.
        merge: largest gap in seconds between two spans of a class that become one.
        shortest: spans that are shorter, in seconds, are left out.
    """

    enter: float = 0.5
    leave: float = 0.3
    merge: float = 0.5
    shortest: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.leave <= self.enter <= 1:
            raise ValueError(f"leave={self.leave:g} and enter={self.enter:g} must satisfy 0 < leave <= enter <= 1")
        if self.merge < 0 or self.shortest < 0:
            raise ValueError(f"merge={self.merge:g} and shortest={self.shortest:g} must not be negative")


class Timeline:
    """Turns probabilities into spans as time goes on. Its memory does not grow with the length of the video.

    Args:
        classes: class names.
        rules: see `Rules`.
        background: classes that are no spans.

    Raises:
        ValueError: a background class does not exist.
    """

    def __init__(self, classes: Sequence[str], rules: Rules, background: Sequence[str] = ()) -> None:
        if unknown := [name for name in background if name not in classes]:
            raise ValueError(f"{unknown[0]!r} is no class of this network; it has {', '.join(classes[:20])}")
        self.classes, self.rules = list(classes), rules
        self.wanted = np.array([name not in background for name in classes])
        self.current: int | None = None
        self.waiting: Span | None = None  # ended, but the next one may be merged with it
        self.end = 0.0
        # By class, since when its probability has been at least `rules.leave`, and the integral of it since then.
        self.since = np.full(len(classes), np.nan)
        self.mass = np.zeros(len(classes))

    def add(self, start: float, end: float, probabilities: np.ndarray) -> list[Span]:
        """Adds the probabilities (K,) between two times in seconds; returns the spans that are complete by now."""
        found: list[Span] = []
        likely = np.where(self.wanted, probabilities, 0.0)
        if self.current is not None and (likely[self.current] < self.rules.leave or self._other(likely)):
            found = self._ended()
        high = likely >= self.rules.leave
        self.since = np.where(high, np.where(np.isnan(self.since), start, self.since), np.nan)
        self.mass = np.where(high, self.mass + likely * (end - start), 0.0)
        best = int(likely.argmax())
        if self.current is None and likely[best] >= self.rules.enter:
            self.current = best
        self.end = end
        if self.current is None and self.waiting is not None and end - self.waiting.end > self.rules.merge:
            found += self._kept(self.waiting)
            self.waiting = None
        return found

    @property
    def label(self) -> str | None:
        """The label of the present moment; None if no span is open."""
        return None if self.current is None else self.classes[self.current]

    def finish(self) -> list[Span]:
        """The remaining spans, at the end of the video."""
        found = self._ended() if self.current is not None else []
        if self.waiting is not None:
            found += self._kept(self.waiting)
            self.waiting = None
        return found

    def _other(self, likely: np.ndarray) -> bool:
        best = int(likely.argmax())
        return best != self.current and likely[best] >= self.rules.enter

    def _ended(self) -> list[Span]:
        """Ends the current span at `self.end`; returns the span before it, if it cannot be merged with this one."""
        assert self.current is not None
        start = float(self.since[self.current])
        length = max(self.end - start, 1e-9)
        span = Span(self.classes[self.current], start, self.end, float(self.mass[self.current] / length))
        self.current = None
        self.since[:], self.mass[:] = np.nan, 0.0  # the next span does not reach back into this one
        before, self.waiting = self.waiting, span
        if before is None:
            return []
        if before.label == span.label and span.start - before.end <= self.rules.merge:
            lengths = (before.end - before.start, span.end - span.start)
            mean = np.average([before.confidence, span.confidence], weights=lengths)
            self.waiting = Span(span.label, before.start, span.end, float(mean))
            return []
        return self._kept(before)

    def _kept(self, span: Span) -> list[Span]:
        return [span] if span.end - span.start >= self.rules.shortest else []
