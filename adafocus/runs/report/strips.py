"""Clips of an evaluation as strips of frames with the patches outlined, in the folder `examples` of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from adafocus.core.files import read_json, write_bytes, write_json
from adafocus.evaluation.gallery import Example

FOLDER = "examples"
FRAMES, SIDE = 8, 112  # frames of a strip, and their height in pixels
LARGEST = 200_000  # largest size of a strip in bytes that a report accepts, about five times the usual size
INNER, OUTER, GAP = (255, 213, 0), (0, 0, 0), (128, 128, 128)


@dataclass(frozen=True)
class Strip:
    """A clip in a report: the bytes of its JPEG image, its label and its prediction."""

    path: str
    label: str
    prediction: str
    probability: float
    right: bool
    picture: bytes


def draw_strip(frames: np.ndarray, boxes: np.ndarray | None) -> bytes:
    """Draws evenly spaced frames side by side, each with its patches outlined, and returns the bytes of a JPEG.

    Args:
        frames: (T, H, W, C) uint8; if C is not 3 (optical flow), its first channel in gray.
        boxes: (T, P, 4) top, left, height and width in pixels of the P patches of each frame, padded with zeros; None
            for whole frames.
    """
    if frames.shape[-1] != 3:
        frames = frames[..., :1].repeat(3, -1)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
    height, width = frames.shape[1:3]
    scale = SIDE / height
    wide = round(width * scale)
    strip = Image.new("RGB", (len(shown) * (wide + 2) - 2, SIDE), GAP)
    resample = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    for place, number in enumerate(shown):
        frame = Image.fromarray(np.ascontiguousarray(frames[number])).resize((wide, SIDE), resample)
        for top, left, high, across in () if boxes is None else (boxes[number] * scale).tolist():
            if not high:  # padding
                continue
            corners = [left, top, left + across - 1, top + high - 1]
            draw = ImageDraw.Draw(frame)
            draw.rectangle(corners, outline=OUTER, width=3)
            draw.rectangle(corners, outline=INNER, width=2)
        strip.paste(frame, (place * (wide + 2), 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=80)
    return file.getvalue()


def write_examples(folder: Path, gallery: Sequence[Example], paths: Sequence[str], classes: Sequence[str]) -> None:
    """Writes the clips of a gallery into the folder `examples` of a run.

    Args:
        folder: the run folder.
        gallery: the clips.
        paths: paths of all evaluation videos.
        classes: class names.

    Raises:
        UserError: a file cannot be written.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, example in enumerate(gallery):
        picture = draw_strip(example.frames.numpy(), None if example.boxes is None else example.boxes.numpy())
        name = f"{number:02d}_{'right' if example.right else 'mistake'}.jpg"
        _write(place / name, picture)
        names = {"label": classes[example.label], "prediction": classes[example.answer]}
        numbers = {"probability": round(example.probability, 5), "right": example.right}
        rows.append({"file": name, "path": paths[example.index], **names, **numbers})
    write_json(place / "examples.json", rows)


def _write(path: Path, content: bytes) -> None:
    write_bytes(path, lambda file: file.write(content))


def read_examples(folder: Path) -> list[Strip]:
    """Reads the clips in the folder `examples` of a run, without those whose image is missing or not a small JPEG.

    Raises:
        UserError: examples.json is damaged.
    """
    place = folder / FOLDER
    strips = []
    for row in read_json(place / "examples.json", list) or []:
        picture = _picture(place, str(row["file"]))
        if picture is not None:
            path, label, prediction = (str(row[key]) for key in ("path", "label", "prediction"))
            strips.append(Strip(path, label, prediction, float(row["probability"]), bool(row["right"]), picture))
    return strips


def _picture(place: Path, name: str) -> bytes | None:
    """Reads an image that lies directly in the folder; None for any other name in an untrusted examples.json."""
    path = place / Path(name).name
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        return None
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]):
            return content
    except (UnidentifiedImageError, OSError):
        return None
