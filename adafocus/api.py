"""The functions of the command line for use from Python: configurations, runs, evaluations, predictors."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adafocus.config import naming
from adafocus.config.compose import compose as compose_typed
from adafocus.config.compose import composed, quoted
from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.core.files import read_json

if TYPE_CHECKING:
    from adafocus.predict import Predictor


def load(
    path: str | PathLike[str], *recipe: str, classes: Sequence[str] | None = None, device: str = "auto"
) -> Predictor:
    """Loads a predictor from a run folder, a checkpoint of this package, or one that the papers' authors published.

        predictor = adafocus.load("outputs/default")
        prediction = predictor("clip.mp4")
        prediction.labels[0], prediction.frames, prediction.boxes, prediction.cost

    The network itself is `predictor.model`: `model(frames).logits` of frames (B, T, 3, H, W), normalized by
    `predictor.normalize`.

    Args:
        path: run folder or checkpoint file, or the target of `adafocus push`: a folder, an fsspec address, or
            `hf://owner/name`.
        recipe: overrides that a published checkpoint needs, such as `experiment=tsm_sthv2_8f`.
        classes: class names; None: those in the file, else numbers.
        device: auto, cpu or cuda.

    Raises:
        UserError: the file is missing, damaged or does not fit, or it needs a plug-in that is not imported.
    """
    from adafocus.predict import load as load_predictor

    return load_predictor(path if isinstance(path, str) else Path(path), recipe, classes=classes, device=device)


def compose(*overrides: str) -> Config:
    """Returns the checked configuration of `adafocus run OVERRIDES`, without starting a run.

        adafocus.compose("dataset=glyphs", "schedule.epochs=1").patch.size

    Raises:
        UserError: a key does not exist, a value is not allowed, or options do not fit together.
    """
    return compose_typed(list(overrides))


def train(*overrides: str, folder: str | PathLike[str] | None = None) -> Path:
    """Trains as `adafocus run OVERRIDES`, in separate processes; repeating the call continues an interrupted run.

    Args:
        overrides: overrides of the configuration, KEY=VALUE.
        folder: the run folder; None: a folder in outputs/ named after the overrides.

    Returns:
        the run folder, for `load` and `evaluate`.

    Raises:
        UserError: the configuration is wrong, or the run has failed for a reason that the user can correct.
        RuntimeError: the run has failed for another reason; its run.log has the traceback.
    """
    return _run(list(overrides), [], folder)


def evaluate(
    checkpoint: str | PathLike[str], *overrides: str, folder: str | PathLike[str] | None = None
) -> dict[str, Any]:
    """Evaluates as `adafocus run mode=evaluate checkpoint=CHECKPOINT OVERRIDES`.

    Args:
        checkpoint: run folder or checkpoint file. Those of this package store their configuration.
        overrides: overrides of the stored configuration, KEY=VALUE.
        folder: the folder for the evaluation; None: a folder in outputs/ named after the overrides.

    Returns:
        the content of summary.json: `score`, `rows` with score and cost of every evaluation variant, and more.

    Raises:
        UserError: the configuration is wrong, or the evaluation has failed for a reason that the user can correct.
        RuntimeError: the evaluation has failed for another reason; its run.log has the traceback.
    """
    from adafocus.cli import stored_overrides

    typed = ["mode=evaluate", f"checkpoint={quoted(str(checkpoint))}", *overrides]
    return read_json(_run(typed, stored_overrides(typed), folder) / "summary.json", dict) or {}


def _run(typed: list[str], stored: list[str], folder: str | PathLike[str] | None) -> Path:
    from adafocus.runs.begin import begin
    from adafocus.runs.launch import launch
    from adafocus.runs.sweep import check_folder

    place = [] if folder is None else [f"hydra.run.dir={quoted(str(folder))}"]
    keys = {naming.key_of(override) for override in typed}
    with composed([*typed, *place], stored) as job:
        check_folder(job.folder, job.node)
        with begin(job.node, job.folder, job.overrides, job.choices, keys) as settings:
            code = 0 if settings is None else launch(job.folder, settings)
    if code:
        status = read_json(job.folder / "status.json", dict) or {}
        reason = status.get("error") or status.get("state")
        raise (UserError if code == 2 else RuntimeError)(f"{job.folder}: {reason}")
    return job.folder
