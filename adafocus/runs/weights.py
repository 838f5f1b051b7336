"""Loads the weights that a job starts from or evaluates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from adafocus import build, checkpoints
from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.training import checkpoint
from adafocus.training.logger import log


def load_start(config: Config, network: nn.Module) -> None:
    """Loads the weights that `init` names: init.from for the whole network, then init.glance and init.focus."""
    for key, part in (("from", None), ("glance", "glance"), ("focus", "focus")):
        if (value := config.start(key)) is not None:
            path = checkpoint_file(f"init.{key}", value, config.schedule.select)
            log.info("%s from %s: %s", part or "start", path, checkpoints.load_start(path, network, part))


def checkpoint_file(key: str, value: str, select: str) -> Path:
    """Returns a file name as path, or for a run folder its checkpoint, preferably the one that `select` names."""
    path = Path(value).expanduser()
    if not path.is_dir():
        return path
    names = (checkpoint.BEST, checkpoint.LAST) if select == "best" else (checkpoint.LAST, checkpoint.BEST)
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise UserError(f"{key}={path} has no {' or '.join(names)}; name a run folder with a checkpoint, or a file")
    return files[0]


def load_checkpoint(
    config: Config, network: nn.Module, classes: list[str], path: Path, content: Mapping[str, Any]
) -> None:
    """Loads a checkpoint of this package or of a paper's repository, and checks its class names."""
    report = checkpoints.load_checkpoint(path, network, content, without=build.not_needed(config))
    if report.classes is not None and report.classes != classes:
        number = next(i for i, pair in enumerate(zip(report.classes, classes, strict=True)) if pair[0] != pair[1])
        raise UserError(
            f"checkpoint {path} was trained on other classes: class {number} is {report.classes[number]!r} there and "
            f"{classes[number]!r} in dataset={config.dataset.name}; list the classes in the checkpoint's order"
        )
    log.info("checkpoint %s: %s", path, report)
