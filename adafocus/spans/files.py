"""Files of spans: .json, .csv and .vtt, the subtitles that video players show."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Protocol

from adafocus.core.errors import UserError, printable
from adafocus.core.files import write_json
from adafocus.core.outputs import table, writable
from adafocus.spans.timeline import Span

SUFFIXES = (".json", ".csv", ".vtt")


class SpanFile(Protocol):
    """A file of spans. The spans are in it after `close`; those of .csv and .vtt as soon as they are known."""

    def add(self, video: str, span: Span) -> None: ...

    def ended(self, video: str, told: dict[str, Any]) -> None:
        """Notes what was done for a video, or its error, after its last span."""

    def close(self) -> None: ...


def span_file(path: Path, head: dict[str, Any], videos: int) -> SpanFile:
    """Opens a file whose format follows from its suffix.

    Args:
        path: the file.
        head: what a .json file says at its top.
        videos: number of videos; a .vtt file belongs to one.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--spans {path}: choose a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".vtt" and videos > 1:
        raise UserError(f"--spans {path}: a .vtt file holds the spans of one video; choose .csv or .json")
    writable("--spans", path)
    kinds: dict[str, type[_JSON] | type[_CSV] | type[_VTT]] = {".json": _JSON, ".csv": _CSV, ".vtt": _VTT}
    return kinds[suffix](path, head)


class _JSON:
    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path, self.head = path, head
        self.spans: list[dict[str, Any]] = []
        self.videos: list[dict[str, Any]] = []

    def add(self, video: str, span: Span) -> None:
        times = {"start": round(span.start, 3), "end": round(span.end, 3)}
        self.spans.append({"label": span.label, **times, "confidence": round(span.confidence, 4)})

    def ended(self, video: str, told: dict[str, Any]) -> None:
        self.videos.append({"video": video, **told, "spans": self.spans})
        self.spans = []

    def close(self) -> None:
        write_json(self.path, {**self.head, "videos": self.videos})


class _CSV:
    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        columns = {"video": str, "label": str, "start_seconds": float, "end_seconds": float, "confidence": float}
        self.table = table("--spans", path, {**columns, "error": str})

    def add(self, video: str, span: Span) -> None:
        times = {"start_seconds": round(span.start, 3), "end_seconds": round(span.end, 3)}
        self.table.write({"video": video, "label": span.label, **times, "confidence": round(span.confidence, 4)})

    def ended(self, video: str, told: dict[str, Any]) -> None:
        if "error" in told:
            self.table.write({"video": video, "error": told["error"]})

    def close(self) -> None:
        self.table.close()


class _VTT:
    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self.file.write("WEBVTT\n")
        self.file.flush()

    def add(self, video: str, span: Span) -> None:
        label = escape(printable(span.label), quote=False)
        self.file.write(f"\n{_clock(span.start)} --> {_clock(span.end)}\n{label} ({100 * span.confidence:.0f} %)\n")
        self.file.flush()

    def ended(self, video: str, told: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        self.file.close()


def _clock(seconds: float) -> str:
    whole = round(1000 * seconds)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"
