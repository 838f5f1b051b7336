"""Plots of a run: a picture of clips with their patches, and the curves of early exit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CELL = 112  # minimal side of a frame in the picture, in pixels
RIGHT, WRONG, PATCH = (46, 160, 67), (218, 54, 51), (255, 213, 0)


def contact_sheet(
    clips: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray | None],
    captions: Sequence[str],
    right: Sequence[bool],
    *,
    columns: int = 8,
) -> Image.Image:
    """Draws an image with one row per clip: its frames in temporal order with the patch outlined, below a caption.

    Args:
        clips: frames (T, H, W, 3) uint8 of each clip.
        boxes: (T, P, 4) top, left, height and width in pixels of the P patches of each frame, padded with zeros; None
            for whole frames.
        captions: text for each clip.
        right: whether each prediction is correct; the caption is green then, else red.
        columns: maximal number of frames per clip, evenly spaced.
    """
    height, width = clips[0].shape[1:3]
    scale = max(1, -(-CELL // height))
    shown = [np.unique(np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)) for clip in clips]
    gap, line = 4, 16
    sheet = Image.new(
        "RGB",
        (max(map(len, shown)) * (width * scale + gap) + gap, len(clips) * (height * scale + line + 2 * gap)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    top = 0
    for clip, places, caption, good, frames in zip(clips, boxes, captions, right, shown, strict=True):
        draw.text((gap, top + 2), caption, fill=RIGHT if good else WRONG)
        for column, frame in enumerate(frames):
            left = gap + column * (width * scale + gap)
            image = Image.fromarray(clip[frame]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + line + gap))
            if places is not None:
                for y, x, high, wide in (places[frame] * scale).tolist():
                    corner = (left + x, top + line + gap + y)
                    if high:
                        draw.rectangle((*corner, corner[0] + wide - 1, corner[1] + high - 1), outline=PATCH, width=2)
        top += height * scale + line + 2 * gap
    return sheet


def exit_curves(rows: Sequence[dict[str, Any]], metric: str, path: Path) -> None:
    """Plots the score of an early-exit evaluation against multiply-adds and measured seconds, as PNG.

    Args:
        rows: the fields of `adafocus.runs.early_exit.Row` as dictionaries.
        metric: name of the score.
        path: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        single = own[0]["budget"] is None
        style = {"marker": "*", "markersize": 11, "linestyle": ""} if single else {"linewidth": 1}
        points = sorted((row["cost"] / 1e6, row["simulated"]) for row in own)
        left.plot(*zip(*points, strict=True), label=name if single else f"{name}, simulated", **style)
        run = sorted(
            (row["cost"] / 1e6, row["score"], 1000 * row["seconds"]) for row in own if row["score"] is not None
        )
        if run and not single:
            left.plot([r[0] for r in run], [r[1] for r in run], "o", markersize=4, label=f"{name}, run")
        if run:
            right.plot(
                [r[2] for r in run], [r[1] for r in run], "*" if single else "o-", markersize=11 if single else 4
            )
    left.set_xlabel("million multiply-adds per video")
    right.set_xlabel("milliseconds a video, reading included")
    left.set_ylabel(f"{metric} (%)")
    left.legend(fontsize=8)
    left.set_ylim(top=min(left.get_ylim()[1], 101.0))
    times = sorted(1000 * row["seconds"] for row in rows if row["score"] is not None)
    usual = 2.5 * times[len(times) // 2]
    if times[-1] > usual:  # a single slow outlier would compress all other points
        right.set_xlim(right=usual)
        slow = sum(time > usual for time in times)
        right.set_title(f"{slow} slower than {usual:.0f} ms, to the right of the picture", fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path)
