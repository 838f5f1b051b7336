"""The records that `adafocus.predict.Predictor` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from adafocus.core.errors import printable


class Box(NamedTuple):
    """A patch in pixels of the video as it is stored, from its upper left corner: x to the right, y downwards.

    It covers x1 <= x < x2 and y1 <= y < y2; corners lie between whole pixels.
    """

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for a video.

    Attributes:
        video: the path, or the name of an array.
        labels: class names, most probable first.
        scores: (K,) probabilities in the order of `labels`.
        logits: (K,) logits in the order of the class ids.
        frames: indices, from 0, of the frames that the focus network saw; empty if several clips are averaged. A frame
            of which several patches are cut is there once for each of them.
        boxes: the patch in each of these frames; empty for whole frames.
        cost: multiply-adds (MACs) of the prediction.
        seconds: time for reading and prediction; in a batch, this video's share.
        protocol: description of the frames and crops that were used.
        exit: with early exit the number of the video's exit, from 0; else None.
        error: the reason if the video cannot be read; then all other fields are empty.
    """

    video: str
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    cost: int = 0
    seconds: float = 0.0
    protocol: str = ""
    exit: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Moment:
    """The prediction after one frame of a stream.

    Attributes:
        seconds: time of the frame in the stream.
        label: the class name to display, after smoothing.
        scores: (K,) probabilities in the order of the class ids, from the mean logits of the last frames.
        latency: seconds from the arrival of the frame to the label.
        frame: (H, W, 3) uint8.
    """

    seconds: float
    label: str
    scores: list[float]
    latency: float
    frame: np.ndarray


def columns(top: int) -> dict[str, type]:
    """Columns of a table of predictions and their types; `label` and `score` are the most probable class, `label_2` the
    second."""
    others = {f"{name}_{rank}": kind for rank in range(2, top + 1) for name, kind in (("label", str), ("score", float))}
    boxes = dict.fromkeys(("frames", "x1", "y1", "x2", "y2"), list)
    found = {"path": str, "label": str, "score": float, **others, "exit": int, "cost_multiply_adds": int}
    return {**found, "seconds": float, **boxes, "error": str}


def row(prediction: Prediction, top: int) -> dict[str, Any]:
    """A prediction as a row with these columns; one with an error has only path and error."""
    if prediction.error is not None:
        return {"path": prediction.video, "error": printable(prediction.error)}
    found: dict[str, Any] = {"path": prediction.video, "exit": prediction.exit, "cost_multiply_adds": prediction.cost}
    for rank, (label, score) in enumerate(zip(prediction.labels[:top], prediction.scores[:top], strict=True), 1):
        end = "" if rank == 1 else f"_{rank}"
        found |= {f"label{end}": label, f"score{end}": score}
    corners = {name: [getattr(box, name) for box in prediction.boxes] for name in ("x1", "y1", "x2", "y2")}
    return {**found, "seconds": round(prediction.seconds, 4), "frames": prediction.frames, **corners}
