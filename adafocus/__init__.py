"""Video recognition that spends its computation where it matters."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def load(path: Any, *recipe: str, classes: Any = None, device: str = "auto") -> Any:
    """Loads a predictor from a run folder, a checkpoint of this package, or one published by a paper's authors.

        predictor = adafocus.load("outputs/default")
        prediction = predictor("clip.mp4")
        prediction.labels[0], prediction.frames, prediction.boxes, prediction.cost

    Args:
        path: run folder or file.
        recipe: overrides for what a published checkpoint does not contain, such as `experiment=tsm_sthv2_8f`.
        classes: class names; None: those in the file, else numbers.
        device: auto, cpu or cuda.

    Returns:
        an `adafocus.predict.Predictor`.

    Raises:
        adafocus.core.errors.UserError: the file is missing or damaged, or does not fit the network.
    """
    from adafocus.predict import load as load_predictor

    return load_predictor(path, recipe, classes=classes, device=device)
