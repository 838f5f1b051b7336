"""Tests of `Timeline`: hysteresis, merging, shortest length and background."""

from __future__ import annotations

import numpy as np
import pytest

from adafocus.spans.timeline import Rules, Span, Timeline

CLASSES = ["up", "down", "nothing"]


def spans(rows: list[tuple[float, float]], rules: Rules = Rules(), background: tuple[str, ...] = ()) -> list[Span]:  # noqa: B008
    """Spans of seconds with these probabilities of "up" and "down"."""
    timeline = Timeline(CLASSES, rules, background)
    found = []
    for second, (up, down) in enumerate(rows):
        found += timeline.add(second, second + 1, np.array([up, down, 1 - up - down]))
    return found + timeline.finish()


def test_a_span_reaches_from_the_low_threshold_to_the_low_threshold() -> None:
    rows = [(0.1, 0.0), (0.4, 0.0), (0.9, 0.0), (0.4, 0.0), (0.2, 0.0), (0.45, 0.0)]
    (up,) = spans(rows, background=("nothing",))
    assert (up.label, up.start, up.end) == ("up", 1, 4)
    assert up.confidence == pytest.approx((0.4 + 0.9 + 0.4) / 3)


def test_another_class_ends_a_span_and_does_not_reach_back_into_it() -> None:
    rows = [(0.6, 0.35), (0.6, 0.35), (0.35, 0.6), (0.0, 0.9)]
    up, down = spans(rows, background=("nothing",))
    assert (up.label, up.start, up.end) == ("up", 0, 2)
    assert (down.label, down.start, down.end, down.confidence) == ("down", 2, 4, pytest.approx(0.75))


def test_near_spans_of_a_class_are_merged_and_short_ones_left_out() -> None:
    rows = [(0.9, 0.0), (0.0, 0.0), (0.7, 0.0), (0.7, 0.0), *[(0.0, 0.0)] * 3, (0.0, 0.9), (0.0, 0.0)]
    kept = spans(rows, Rules(merge=1.0, shortest=2.0), ("nothing",))
    assert [(span.label, span.start, span.end) for span in kept] == [("up", 0, 4)]
    assert kept[0].confidence == pytest.approx((0.9 + 0.7 + 0.7) / 3)
    apart = spans(rows, Rules(merge=0.5, shortest=0.5), ("nothing",))
    assert [(span.label, span.start) for span in apart] == [("up", 0), ("up", 2), ("down", 7)]


def test_background_is_no_span_and_must_exist() -> None:
    rows = [(0.0, 0.0)] * 3
    assert [span.label for span in spans(rows)] == ["nothing"]
    assert spans(rows, background=("nothing",)) == []
    with pytest.raises(ValueError, match="'none' is no class"):
        Timeline(CLASSES, Rules(), ("none",))
    with pytest.raises(ValueError, match="leave=0.6 and enter=0.5"):
        Rules(leave=0.6)


def test_a_span_is_known_as_soon_as_nothing_can_be_merged_with_it() -> None:
    timeline = Timeline(CLASSES, Rules(merge=1.0), ("nothing",))
    assert timeline.add(0, 1, np.array([0.9, 0.0, 0.1])) == [] and timeline.label == "up"
    assert timeline.add(1, 2, np.array([0.0, 0.0, 1.0])) == [] and timeline.label is None
    assert [span.label for span in timeline.add(2, 3, np.array([0.0, 0.0, 1.0]))] == ["up"]
