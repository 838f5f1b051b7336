"""The part of `adafocus predict` that finds spans in long videos and streams, and draws them into videos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adafocus.core.errors import UserError, as_user_error, printable
from adafocus.core.outputs import writable
from adafocus.spans import FOCUS_BELOW, OVERLAP, WINDOW
from adafocus.spans.files import span_file
from adafocus.spans.timeline import Rules, Span, Timeline

if TYPE_CHECKING:
    from adafocus.spans.finder import Finder, Found

#: Option -> (type, placeholder, what it does); the defaults are those of `Rules` and `Finder`.
OPTIONS: dict[str, tuple[type, str, str]] = {
    "window": (float, "S", f"seconds that the network sees at a time (default {WINDOW:g})"),
    "overlap": (int, "N", f"how many windows show each moment (default {OVERLAP})"),
    "focus_below": (
        float,
        "P",
        f"focus on a window only if the glance's highest probability is below P (default {FOCUS_BELOW:g}; 2: always)",
    ),
    "enter": (float, "P", f"probability at which a span begins (default {Rules.enter:g})"),
    "leave": (float, "P", f"probability below which it ends (default {Rules.leave:g})"),
    "merge": (float, "S", f"join spans of a label that are at most S seconds apart (default {Rules.merge:g})"),
    "shortest": (float, "S", f"leave out spans below S seconds (default {Rules.shortest:g})"),
    "background": (str, "CLASS", "a class that is no span, such as `nothing`; may be repeated"),
    "video": (Path, "FILE", "also write the video with the labels drawn in (.mp4)"),
}
WINDOWED = ("window", "overlap", "focus_below")  # a network that runs frame by frame has no windows
RULES = ("enter", "leave", "merge", "shortest")


def add_span_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --spans and the options that go with it."""
    group = parser.add_argument_group("spans in long videos (also of a camera: its index)")
    group.add_argument("--spans", type=Path, metavar="FILE", help="write label, start and end: .json, .csv or .vtt")
    for name, (kind, placeholder, text) in OPTIONS.items():
        action: dict[str, Any] = {"action": "append"} if name == "background" else {}
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=placeholder, help=text, **action)


def check_span_arguments(options: argparse.Namespace) -> None:
    """
    Raises:
        UserError: an option that would have no effect, or has no possible value.
    """
    chosen = [name for name in OPTIONS if getattr(options, name) is not None]
    if options.spans is None:
        if chosen:
            raise UserError(f"--{chosen[0].replace('_', '-')} needs --spans FILE")
        return
    for name in ("table", "draw", "json"):
        if getattr(options, name):
            raise UserError(f"--{name} is for the label of a whole video; with --spans use --video to see the spans")
    if options.online and (without := [name for name in WINDOWED if name in chosen]):
        raise UserError(f"--{without[0].replace('_', '-')} is for windows; --online looks at one frame at a time")
    for name, least in (("window", 0.0), ("overlap", 1), ("focus_below", 0.0)):
        value = getattr(options, name)
        if value is not None and (value < least or name == "window" and value <= 0):
            raise UserError(f"--{name.replace('_', '-')} {value:g} is too small")
    if options.video is not None:
        if options.video.suffix.lower() != ".mp4":
            raise UserError(f"--video {options.video}: choose a name that ends in .mp4")
        writable("--video", options.video)


def find_spans(predictor: Any, named: list[str], options: argparse.Namespace) -> int:
    """Finds the spans of all videos; returns the exit status: 1 if a video could not be read."""
    from adafocus.commands.predict import find_videos
    from adafocus.predict import FRAMES
    from adafocus.spans.finder import Finder

    template = predictor.settings.dataset.frame_template or FRAMES
    videos = [video for name in named for video in ([name] if name.isdigit() else find_videos([name], template))]
    if folders := [video for video in videos if Path(video).is_dir()]:
        raise UserError(f"{folders[0]}: spans are found in video files and cameras, not in folders of frames")
    if options.video and len(videos) > 1:
        raise UserError(f"--video shows one video, and {len(videos)} were named")
    if options.video and videos[0].isdigit() and not options.online:
        raise UserError("--video with a camera needs --online, since a file is read a second time to draw its spans")
    with as_user_error():
        rules = Rules(**{name: value for name in RULES if (value := getattr(options, name)) is not None})
        background = tuple(options.background or ())
        if options.online:
            Timeline(predictor.classes, rules, background)
            work: _Windowed | _Online = _Online(predictor, rules, background, options)
        else:
            given = {name: value for name in WINDOWED if (value := getattr(options, name)) is not None}
            work = _Windowed(Finder(predictor, rules, background, **given), options)
    head = {"protocol": predictor.protocol, "times": "seconds from the first frame", **work.head}
    file = span_file(options.spans, head, len(videos))
    sys.stdout.write(f"{work.title}\n")
    status = 0
    try:
        for video in videos:
            told = _one(work, video, file)
            status = max(status, int("error" in told))
            file.ended(video, told)
    finally:
        file.close()
    return status


def _one(work: _Windowed | _Online, video: str, file: Any) -> dict[str, Any]:
    """Finds and writes the spans of a video; an error ends this video only."""
    from adafocus.data.video import VideoError

    spans: list[Span] = []
    told: dict[str, Any] = {}
    sys.stdout.write(f"{printable(video)}\n")
    try:
        for span in work.find(video):
            spans.append(span)
            file.add(video, span)
            times = f"{_clock(span.start)} to {_clock(span.end)}"
            sys.stdout.write(f"  {times}  {printable(span.label)}  ({100 * span.confidence:.0f} %)\n")
            sys.stdout.flush()
        work.draw(video, spans)
    except KeyboardInterrupt:  # Ctrl-C ends the work on a camera
        sys.stdout.write("\n")
    except VideoError as error:
        told["error"] = printable(error)
        sys.stderr.write(f"error: {told['error']}\n")
    sys.stdout.write(f"  {work.conclusion()}\n")
    return {**work.told(), **told}


class _Windowed:
    """Spans of overlapping windows."""

    def __init__(self, finder: Finder, options: argparse.Namespace) -> None:
        self.finder, self.options = finder, options
        self.found: Found | None = None
        if not finder.answers:
            how = "the whole network looks at every window, since it has no answer at the glance"
        else:
            how = f"focused on if the glance's highest probability is below {finder.focus_below:g}"
            how += (
                "; windows share the glance features of their frames"
                if finder.shares
                else ("; every window glances anew, since its frames are mixed in the glance network")
            )
        self.title = f"windows of about {finder.window:g} s, {how}"
        self.head = {"windows": self.title}

    def find(self, video: str) -> Iterator[Span]:
        """Yields the spans, and shows how far it is."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from adafocus.spans.finder import Found

        self.found = found = Found()
        terminal = Console(stderr=True)
        columns = (BarColumn(), TextColumn("{task.fields[at]} of the video,"), TimeRemainingColumn(), "left")
        shown = Progress(*columns, console=terminal, disable=not terminal.is_terminal, transient=True)
        with shown:
            task = shown.add_task("", total=None, at="0:00")

            def advance(so_far: Found) -> None:
                at = _clock(so_far.seconds)
                shown.update(task, total=so_far.duration, completed=so_far.seconds, at=at)

            yield from self.finder.find(video, found, advance)

    def draw(self, video: str, spans: list[Span]) -> None:
        """Writes the video of --video; the file is decoded again, so that no frame is kept in memory."""
        if self.options.video is None:
            return
        from adafocus.data.stream import Stream, write_video

        with Stream(video) as stream:
            write_video(self.options.video, labeled(stream, spans), rate=stream.rate)
        sys.stdout.write(f"  {self.options.video}: the video with its labels\n")

    def conclusion(self) -> str:
        found = self.found
        if found is None or not found.windows:
            return "no window of it could be seen"
        share = 100 * found.cost / found.dense_cost
        return (
            f"{found.spans} spans in {_clock(found.seconds)}: focused on {found.focused} of {found.windows} windows, "
            f"{share:.0f} % of the multiply-adds of the whole network in all of them"
        )

    def told(self) -> dict[str, Any]:
        """What .json says of a video."""
        found = self.found
        assert found is not None
        return {
            "seconds": round(found.seconds, 3),
            "frames": found.frames,
            "windows": found.windows,
            "focused_windows": found.focused,
            "multiply_adds": found.cost,
            "multiply_adds_of_dense_windows": found.dense_cost,
        }


class _Online:
    """Spans of a network that runs frame by frame, from the frames so far only."""

    title = "frame by frame, from the frames so far only"

    def __init__(self, predictor: Any, rules: Rules, background: tuple[str, ...], options: argparse.Namespace) -> None:
        self.predictor, self.rules, self.background, self.options = predictor, rules, background, options
        self.head = {"windows": self.title}
        self.count, self.seconds, self.spans = 0, 0.0, 0

    def find(self, video: str) -> Iterator[Span]:
        """Yields the spans; draws the labels at once, since a camera cannot be read again."""
        from adafocus.data.stream import Stream, VideoWriter

        timeline = Timeline(self.predictor.classes, self.rules, self.background)
        self.count, self.seconds, self.spans, last = 0, 0.0, 0, None
        every, rate = self.options.every, 25.0
        if self.options.video and not video.isdigit():
            with Stream(video) as stream:
                rate = stream.rate
        drawn = VideoWriter(self.options.video, rate / every) if self.options.video else nullcontext()
        try:
            with drawn as writer:
                for moment in self.predictor.stream(video, every=every, bgr=self.options.bgr):
                    if last is not None:
                        yield from self._counted(timeline.add(self.seconds, moment.seconds, last))
                    last = np.array(moment.scores)
                    self.count, self.seconds = self.count + 1, moment.seconds
                    if writer is not None:
                        writer.add(captioned(moment.frame, timeline.label or ""))
        finally:
            if last is not None:
                timeline.add(self.seconds, self.seconds + every / rate, last)
            yield from self._counted(timeline.finish())

    def _counted(self, spans: list[Span]) -> list[Span]:
        self.spans += len(spans)
        return spans

    def draw(self, video: str, spans: list[Span]) -> None:
        """Nothing: `find` has drawn them."""

    def conclusion(self) -> str:
        return f"{self.spans} spans in {_clock(self.seconds)}, {self.count} frames"

    def told(self) -> dict[str, Any]:
        """What .json says of a video."""
        return {"seconds": round(self.seconds, 3), "frames": self.count}


def labeled(stream: Any, spans: list[Span]) -> Iterator[np.ndarray]:
    """Yields all frames of a stream, with the label of the span at this time."""
    waiting = iter(spans)
    span = next(waiting, None)
    for seconds, picture in stream:
        while span is not None and seconds >= span.end:
            span = next(waiting, None)
        shown = span is not None and seconds >= span.start
        yield captioned(picture(None), f"{span.label}  {100 * span.confidence:.0f} %" if span and shown else "")


def captioned(frame: np.ndarray, text: str) -> np.ndarray:
    """A frame with a line of text at its top."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(frame))
    draw = ImageDraw.Draw(image)
    if text:
        size = max(12, image.height // 20)
        draw.rectangle((0, 0, image.width, size + 6), fill=(0, 0, 0))
        draw.text((4, 2), text, fill=(255, 255, 255), font_size=size)
    return np.asarray(image)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else str(whole // 60)
    return f"{hours}:{whole % 60:02}.{int(10 * seconds) % 10}"
