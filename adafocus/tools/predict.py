"""`adafocus predict`: labels of videos, or the running label of a stream."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from adafocus.core.errors import UserError
from adafocus.tools.loading import add_model_arguments, load_predictor, split_typed


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 1 if a video could not be read."""
    parser = argparse.ArgumentParser(prog="adafocus predict", description="Labels of videos.")
    add_model_arguments(parser, rest="VIDEO")
    parser.add_argument(
        "--online", action="store_true", help="frame by frame (models trained with backbone.shift=online)"
    )
    parser.add_argument("--every", type=int, default=2, metavar="N", help="online: process each n-th frame (default 2)")
    parser.add_argument("--bgr", action="store_true", help="online: feed blue, green, red as the released demo does")
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FILE",
        help="where it looked: a strip (.png, .jpg) or a clip (.gif, .mp4); online: the stream with its running label (.mp4)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="labels a video (default 5)")
    options = parser.parse_args(argv)
    videos = split_typed(options.rest)[1]
    if not videos:
        raise UserError("no video to predict; name a file" + (", or a camera index" if options.online else ""))
    if options.every < 1:
        raise UserError(f"--every {options.every} must be at least 1")
    predictor = load_predictor(options, videos=True)
    if options.online:
        found = [_stream(predictor, video, options) for video in videos]
    else:
        found = _label(predictor, videos, options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 1 if any("error" in entry for entry in found) else 0


def _label(predictor, videos: list[str], options: argparse.Namespace) -> list[dict[str, object]]:  # noqa: ANN001
    """Prints the labels of all videos; what is returned goes into --json."""
    from adafocus.tools.drawing import draw

    entries: list[dict[str, object]] = []
    for prediction in predictor(videos):
        if prediction.error is not None:
            sys.stderr.write(f"error: {prediction.error}\n")
            entries.append({"video": prediction.video, "error": prediction.error})
            continue
        sys.stdout.write(f"{prediction.video}  ({prediction.protocol}; {prediction.seconds:.2f} s)\n")
        for label, score in list(zip(prediction.labels, prediction.scores, strict=True))[: options.top]:
            sys.stdout.write(f"  {100 * score:5.1f} %  {label}\n")
        entry = asdict(prediction)
        del entry["error"]
        entries.append(entry)
        if options.draw:
            path = options.draw
            if len(videos) > 1:  # one picture each
                path = path.with_name(f"{path.stem}_{Path(prediction.video).stem}{path.suffix}")
            dataset = predictor.settings.dataset
            entry["drawn"] = str(draw(prediction, path, template=dataset.frame_template, reader=dataset.reader))
            sys.stdout.write(f"  where it looked: {path}\n")
    return entries


def _stream(predictor, source: str, options: argparse.Namespace) -> dict[str, object]:  # noqa: ANN001
    """Prints a line whenever the label changes, and the latency at the end."""
    from adafocus.data.stream import write_video
    from adafocus.data.video import VideoError

    moments: list[dict[str, object]] = []

    def pictures() -> Iterator[np.ndarray]:
        shown = None
        for moment in predictor.stream(source, every=options.every, bgr=options.bgr):
            if moment.label != shown:
                shown = moment.label
                sys.stdout.write(f"{moment.seconds:8.2f} s  {shown}  ({1000 * moment.latency:.1f} ms)\n")
                sys.stdout.flush()
            moments.append({"seconds": moment.seconds, "label": moment.label, "latency": moment.latency})
            yield (
                _captioned(moment.frame, f"{moment.label}  {1000 * moment.latency:.0f} ms")
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
        sys.stderr.write(f"error: {error}\n")
        entry["error"] = str(error)
    except KeyboardInterrupt:  # how one leaves a camera
        sys.stdout.write("\n")
    if moments:
        latencies = sorted(1000 * float(moment["latency"]) for moment in moments)
        slow = latencies[int(0.95 * (len(latencies) - 1))]
        sys.stdout.write(
            f"{len(moments)} frames; latency {statistics.median(latencies):.1f} ms, 95 % below {slow:.1f} ms\n"
        )
    return entry


def _captioned(frame: np.ndarray, text: str) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(frame))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width, 16), fill=(0, 0, 0))
    draw.text((4, 2), text, fill=(255, 255, 255))
    return np.asarray(image)
