"""What the command line does, from Python: configurations, runs, evaluations, predictors."""

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
    """A predictor of a run folder, of a checkpoint of ours, or of a file of a seed project.

        predictor = adafocus.load("outputs/default")
        prediction = predictor("clip.mp4")
        prediction.labels[0], prediction.frames, prediction.boxes, prediction.cost

    The network itself is `predictor.model`: `model(frames).logits` of frames (B, T, 3, H, W), normalized by
    `predictor.normalize`.

    Args:
        path: run folder or file, or where `adafocus push` has shared one: a folder, an fsspec address,
            `hf://owner/name`.
        recipe: overrides that say what a seed project's file does not, as `experiment=tsm_sthv2_8f`.
        classes: class names; None: those of the file, else numbers.
        device: auto, cpu or cuda.

    Raises:
        UserError: the file is missing, damaged, or does not fit, or it needs a plug-in that is not imported; one line.
    """
    from adafocus.predict import load as load_predictor

    return load_predictor(path if isinstance(path, str) else Path(path), recipe, classes=classes, device=device)


def compose(*overrides: str) -> Config:
    """The checked configuration of `adafocus run OVERRIDES`, without a run.

        adafocus.compose("dataset=glyphs", "schedule.epochs=1").patch.size

    Raises:
        UserError: an override that does not exist, a value that is not allowed, or options that do not go together.
    """
    return compose_typed(list(overrides))


def train(*overrides: str, folder: str | PathLike[str] | None = None) -> Path:
    """Trains as `adafocus run OVERRIDES` does, in processes of its own; the same call goes on with an interrupted run.

    Args:
        folder: of the run; None: named after the overrides, in outputs/ of the current folder.

    Returns:
        the run folder, for `load` and `evaluate`.

    Raises:
        UserError: as `compose`, or the run has failed for a reason that is the user's.
        RuntimeError: it has failed otherwise; its run.log holds the traceback.
    """
    return _run(list(overrides), [], folder)


def evaluate(
    checkpoint: str | PathLike[str], *overrides: str, folder: str | PathLike[str] | None = None
) -> dict[str, Any]:
    """Evaluates as `adafocus run mode=evaluate checkpoint=CHECKPOINT OVERRIDES` does.

    Args:
        checkpoint: run folder or file. Ours say themselves what network and data they are of; overrides win.
        folder: of the evaluation; None: as in `train`.

    Returns:
        the summary: `score`, `rows` of every answer with its cost, and more; see summary.json of the folder.

    Raises:
        UserError, RuntimeError: see `train`.
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
