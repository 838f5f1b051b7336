"""Spans in long videos and streams: what happens, from when to when, and how sure that is."""

from adafocus.spans.finder import Finder, Found
from adafocus.spans.timeline import Rules, Span, Timeline

__all__ = ["Finder", "Found", "Rules", "Span", "Timeline"]
