"""Video recognition that spends its computation where it matters."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def load(path: Any, *recipe: str, classes: Any = None, device: str = "auto") -> Any:
    """A predictor of a run folder, of a checkpoint of ours, or of a file of a seed project.

        predictor = adafocus.load("outputs/default")
        prediction = predictor("clip.mp4")
        prediction.labels[0], prediction.frames, prediction.boxes, prediction.cost

    Args:
        path: run folder or file.
        recipe: overrides that say what a seed project's file does not, as `experiment=tsm_sthv2_8f`.
        classes: class names; None: those of the file, else numbers.
        device: auto, cpu or cuda.

    Returns:
        an `adafocus.predict.Predictor`.

    Raises:
        adafocus.core.errors.UserError: the file is missing, damaged, or does not fit; one line.
    """
    from adafocus.predict import load as load_predictor

    return load_predictor(path, recipe, classes=classes, device=device)
