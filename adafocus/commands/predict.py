"""`adafocus predict`: predicts labels of videos, or of a video stream frame by frame."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adafocus.commands.loading import add_model_arguments, load_predictor, split_typed
from adafocus.commands.spans import add_span_arguments, captioned, check_span_arguments, find_spans
from adafocus.core.arguments import ArgumentParser
from adafocus.core.choices import ENGINE_PARTS, ENGINES
from adafocus.core.errors import UserError, printable
from adafocus.core.outputs import table, writable
from adafocus.core.prediction import columns, row
from adafocus.data.folders import find_videos
from adafocus.processes.memory import keep_freed_memory

EPILOG = """A folder is searched for videos; a folder of numbered frames is a video itself. A table has one row per
video, sorted by path; each row is written as soon as it is known (.parquet: all at the end). Boxes are in pixels of
the stored video, with x to the right and y downwards from the upper left corner, x1 <= x < x2 and y1 <= y < y2, one
for each index in `frames`. `exit` is the number of the exit with --early-exit, and else empty. In .csv, text that a
spreadsheet program would read as a formula (it begins with = + - @) gets an apostrophe in front. A --table without
a suffix is a folder of Parquet parts, for any number of videos: INPUT is then a folder, a list of paths (.txt), or a
table (.csv, .parquet) with a column of paths, local or behind addresses (s3, gs, http); an interrupted command
continues."""


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus predict`; returns the exit status: 1 if a video could not be read."""
    options = _parse(argv)
    videos = split_typed(options.rest)[1]
    if not videos:
        raise UserError(
            "no video was given; name a file or a folder" + (" or a camera index" if options.online else "")
        )
    _check(options)
    keep_freed_memory()
    if options.table and (options.table.is_dir() or not options.table.suffix):
        from adafocus.commands.bulk import run

        return run(options, videos)
    predictor = load_predictor(options, videos=True)
    if options.spans:
        return find_spans(predictor, videos, options)
    if options.online:
        found = [_stream(predictor, video, options) for video in videos]
    else:
        found = _label(predictor, videos, options)
    if options.json:
        from adafocus.core.files import write_json

        head = {"protocol": predictor.protocol, "classes": predictor.classes, "cost": "multiply-adds of a video"}
        write_json(options.json, {**head, "videos": found})
    return 1 if any("error" in entry for entry in found) else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="adafocus predict", description="Labels of videos.", epilog=EPILOG)
    add_model_arguments(parser, rest="VIDEO")
    parser.add_argument(
        "--online", action="store_true", help="frame by frame (models trained with backbone.shift=online)"
    )
    parser.add_argument("--every", type=int, default=2, metavar="N", help="online: process each n-th frame (default 2)")
    parser.add_argument(
        "--bgr", action="store_true", help="online: swap channels to blue, green, red, as TSM's online demo does"
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FILE",
        help="draw the patches: frames side by side (.png, .jpg) or animated (.gif, .mp4); with several videos one "
        "file each, FILE_VIDEO; online: the stream with its label (.mp4)",
    )
    parser.add_argument(
        "--precision", default="fp32", choices=("auto", "fp32", "bf16", "fp16"), help="of the backbones"
    )
    parser.add_argument(
        "--fold-norm", action="store_true", help="fold BatchNorm into convolutions: faster, same result"
    )
    parser.add_argument("--program", default="eager", choices=ENGINES, help="what runs the backbones")
    parser.add_argument("--program-for", default="all", choices=ENGINE_PARTS, help="the backbones that it runs")
    parser.add_argument(
        "--early-exit", metavar="RUN", help="let videos exit by the thresholds of this run of mode=early_exit"
    )
    parser.add_argument("--budget", type=float, metavar="Q", help="a budget of that run; its best one by default")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="write one row per video: .csv, .jsonl or .parquet, or a folder of Parquet parts",
    )
    bulk = parser.add_argument_group("a --table that is a folder")
    bulk.add_argument("--engine", choices=("local", "ray"), default="local", help="worker processes here, or Ray Data")
    bulk.add_argument("--workers", type=int, metavar="N", help="number of processes (default: cores; with a GPU 1)")
    bulk.add_argument("--column", default="path", metavar="NAME", help="column of paths of a table (default path)")
    bulk.add_argument(
        "--root", metavar="FOLDER", help="paths start here and may not leave it (default: the folder of the table)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to one file")
    add_span_arguments(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of labels per video (default 5)")
    return parser.parse_args(argv)


def _check(options: argparse.Namespace) -> None:
    """Checks the arguments before the model is loaded.

    Raises:
        UserError: arguments are wrong or do not fit together.
    """
    from adafocus.commands.drawing import SUFFIXES

    if options.budget is not None and options.early_exit is None:
        raise UserError("--budget is for --early-exit RUN")
    if options.online and options.early_exit:
        raise UserError("--early-exit is for whole videos; leave it out with --online")
    for name in ("every", "top", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    check_span_arguments(options)
    if options.online and options.table:
        raise UserError("--table is for whole videos; with --online use --json")
    if options.draw and options.draw.suffix.lower() not in ((".mp4",) if options.online else SUFFIXES):
        suffixes = ".mp4" if options.online else ", ".join(SUFFIXES)
        raise UserError(f"--draw {options.draw}: choose a name that ends in {suffixes}")
    for name in ("json", "draw"):
        if path := getattr(options, name):
            writable(f"--{name}", path)


def _label(predictor: Any, named: list[str], options: argparse.Namespace) -> list[dict[str, object]]:
    """Predicts all videos, prints their labels or writes the table, and returns the entries for --json."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from adafocus.predict import FRAMES

    videos = find_videos(named, predictor.settings.dataset.frame_template or FRAMES)
    if options.draw and predictor.view().views > 1:
        raise UserError("--draw: the prediction is averaged over several clips or crops; choose protocol=single")
    pictures = _pictures(options.draw, videos) if options.draw else {}
    top = min(options.top, len(predictor.classes))
    rows = table("--table", options.table, columns(top)) if options.table else None
    terminal = Console(stderr=True)
    parts = (BarColumn(), MofNCompleteColumn(), "videos,", TimeRemainingColumn(), "left")
    progress = Progress(*parts, console=terminal, disable=not terminal.is_terminal or len(videos) < 2, transient=True)
    entries: list[dict[str, object]] = []
    try:
        with progress:
            task = progress.add_task("", total=len(videos))
            for prediction in predictor.each(videos):
                entry = _entry(prediction)
                if rows is not None:
                    rows.write(_row(prediction, top))
                if prediction.error is not None:
                    sys.stderr.write(f"error: {printable(prediction.error)}\n")
                elif rows is None:
                    if not any("labels" in other for other in entries):
                        sys.stdout.write(f"{predictor.protocol}\n")
                    _show(prediction, top)
                if prediction.error is None and options.draw:
                    _draw(predictor, prediction, pictures[prediction.video], entry)
                entries.append(entry)
                progress.advance(task)
    finally:
        if rows is not None:
            rows.close()
    if rows is not None:
        failed = sum("error" in entry for entry in entries)
        sys.stdout.write(f"{options.table}: {len(entries)} videos{f', {failed} with an error' if failed else ''}\n")
    return entries


def _row(prediction: Any, top: int) -> dict[str, Any]:
    """Returns a row of a table; corners have two digits, since such tables are read by people too."""
    found = row(prediction, top)
    return found | {name: [round(value, 2) for value in found.get(name, ())] for name in ("x1", "y1", "x2", "y2")}


def _entry(prediction: Any) -> dict[str, Any]:
    """Returns the entry of a prediction in --json, without classes and protocol, which the file has only once."""
    if prediction.error is not None:
        return {"video": prediction.video, "error": printable(prediction.error)}
    names = ("video", "labels", "scores", "logits", "frames", "cost", "seconds", "exit")
    boxes = [box._asdict() for box in prediction.boxes]
    return {**{name: getattr(prediction, name) for name in names}, "boxes": boxes}


def _show(prediction: Any, top: int) -> None:
    sys.stdout.write(f"{printable(prediction.video)}  ({prediction.seconds:.2f} s)\n")
    for label, score in list(zip(prediction.labels, prediction.scores, strict=True))[:top]:
        sys.stdout.write(f"  {100 * score:5.1f} %  {printable(label)}\n")


def _pictures(path: Path, videos: Sequence[str]) -> dict[str, Path]:
    """Returns the path of each video's image; with several videos it contains the part of the path that differs."""
    if len(videos) == 1:
        return {videos[0]: path}
    whole = [os.path.abspath(video) for video in videos]
    common = os.path.commonpath([os.path.dirname(video) for video in whole])
    found: dict[str, Path] = {}
    taken: set[str] = set()
    for video, name in zip(videos, whole, strict=True):
        own = re.sub(r"[^\w.+-]+", "_", os.path.splitext(os.path.relpath(name, common))[0])
        number, free = 1, own
        while free.lower() in taken:  # for clip.mp4 and clip.avi, or on file systems that ignore case
            number += 1
            free = f"{own}-{number}"
        taken.add(free.lower())
        found[video] = path.with_name(f"{path.stem}_{free}{path.suffix}")
    return found


def _draw(predictor: Any, prediction: Any, path: Path, entry: dict[str, Any]) -> None:
    """Draws the patches of a prediction; an error is printed and recorded, and the other videos are still predicted."""
    from adafocus.commands.drawing import draw
    from adafocus.data.video import VideoError

    dataset = predictor.settings.dataset
    try:
        draw(prediction, path, template=dataset.frame_template, reader=dataset.reader)
    except (VideoError, OSError) as error:
        sys.stderr.write(f"error: {path} cannot be drawn ({printable(error)})\n")
        entry["error"] = f"not drawn: {printable(error)}"
        return
    entry["drawn"] = str(path)
    sys.stdout.write(f"  where it looked: {path}\n")


def _stream(predictor: Any, source: str, options: argparse.Namespace) -> dict[str, object]:
    """Predicts a stream: prints a line whenever the label changes, and the latency at the end."""
    from adafocus.data.stream import write_video
    from adafocus.data.video import VideoError

    moments: list[dict[str, Any]] = []

    def pictures() -> Iterator[np.ndarray]:
        shown = None
        for moment in predictor.stream(source, every=options.every, bgr=options.bgr):
            if moment.label != shown:
                shown = moment.label
                sys.stdout.write(f"{moment.seconds:8.2f} s  {shown}  ({1000 * moment.latency:.1f} ms)\n")
                sys.stdout.flush()
            told = {"seconds": moment.seconds, "label": moment.label, "latency": moment.latency}
            moments.append({**told, "scores": [round(score, 5) for score in moment.scores]})
            yield (
                captioned(moment.frame, f"{moment.label}  {1000 * moment.latency:.0f} ms")
                if options.draw
                else moment.frame
            )

    entry: dict[str, object] = {"video": source, "moments": moments}
    try:
        if options.draw:
            write_video(options.draw, pictures(), rate=25.0 / options.every)
        else:
            for _ in pictures():
                pass
    except VideoError as error:
        sys.stderr.write(f"error: {printable(error)}\n")
        entry["error"] = printable(error)
    except KeyboardInterrupt:  # Ctrl-C ends the prediction of a camera
        sys.stdout.write("\n")
    if moments:
        latencies = sorted(1000 * float(moment["latency"]) for moment in moments)
        slow = latencies[int(0.95 * (len(latencies) - 1))]
        sys.stdout.write(
            f"{len(moments)} frames; latency {statistics.median(latencies):.1f} ms, 95 % below {slow:.1f} ms\n"
        )
    return entry
