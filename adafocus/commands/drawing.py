"""Draws a prediction: the frames that the focus network saw, with the patches outlined."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from adafocus.core.errors import UserError
from adafocus.data.frames import FrameFolder
from adafocus.data.stream import write_video
from adafocus.data.video import open_video
from adafocus.evaluation.places import boxes_of_frames
from adafocus.runs.plots import PATCH, contact_sheet

SUFFIXES = (".png", ".jpg", ".gif", ".mp4")
SHORT_SIDE = 256  # shorter side of the drawn frames in pixels
RATE = 4.0  # frames per second of GIF and MP4


def draw(prediction: Any, path: Path, *, template: str | None = None, reader: str = "auto") -> Path:
    """Draws the `Prediction` for a video: frames side by side (PNG, JPEG) or as animation (GIF, MP4); returns the path.

    Raises:
        UserError: the file has another suffix, or the prediction is averaged over several clips.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--draw {path}: choose a name that ends in {', '.join(SUFFIXES)}")
    if not prediction.frames:
        raise UserError(
            f"--draw: the prediction for {prediction.video} is averaged over several clips; choose protocol=single"
        )
    source = Path(prediction.video)
    opened = FrameFolder(source, template or "image_{:05d}.jpg") if source.is_dir() else open_video(source, reader)
    with opened as video:
        numbers = np.array(prediction.frames)
        if several := len(prediction.boxes) > len(set(prediction.frames)):
            numbers = np.unique(numbers)
        frames = video.read(numbers, SHORT_SIDE)
        scale = frames.shape[1] / video.height
    boxes = None
    if prediction.boxes:
        x1, y1, x2, y2 = (np.array(prediction.boxes) * scale).T
        boxes = np.stack([y1, x1, y2 - y1, x2 - x1], 1)[:, None]
        if several:  # patches of the same frame are drawn into one image
            of = torch.tensor(prediction.frames)
            boxes = boxes_of_frames(of, torch.from_numpy(boxes[:, 0]))[1].numpy()
    caption = f"{prediction.labels[0]}  {100 * prediction.scores[0]:.0f} %"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".png", ".jpg"):
        contact_sheet([frames], [boxes], [caption], [True]).save(path)
        return path
    pictures = [
        _picture(frame, () if boxes is None else boxes[number], f"{caption}  frame {numbers[number]}")
        for number, frame in enumerate(frames)
    ]
    if path.suffix.lower() == ".gif":
        first, *rest = pictures
        first.save(path, save_all=True, append_images=rest, duration=int(1000 / RATE), loop=0)
    else:
        write_video(path, (np.asarray(picture) for picture in pictures), rate=RATE)
    return path


def _picture(frame: np.ndarray, boxes: Iterable[np.ndarray], caption: str) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(frame))
    pen = ImageDraw.Draw(image)
    for top, left, height, width in boxes:
        if height:
            pen.rectangle((left, top, left + width - 1, top + height - 1), outline=PATCH, width=3)
    pen.rectangle((0, 0, image.width, 14), fill=(0, 0, 0))
    pen.text((4, 1), caption, fill=(255, 255, 255))
    return image
