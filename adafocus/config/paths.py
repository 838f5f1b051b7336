"""Files and folders that a configuration names: those that are missing are told before anything is made."""

from __future__ import annotations

from pathlib import Path

from adafocus.config.schema import Config
from adafocus.core.errors import UserError


def check(config: Config, *, fresh: bool) -> None:
    """Refuses paths that name nothing.

    Args:
        fresh: nothing was trained yet. A run that goes on needs nothing of what it started from.

    Raises:
        UserError: the first such path, with its key.
    """
    root = config.dataset.root
    if config.dataset.source == "files" and root and not Path(root).expanduser().is_dir():
        raise UserError(f"dataset.root={root} is not a folder")
    for key, path in _starts(config).items() if config.mode == "train" and fresh else ():
        if not Path(path).expanduser().exists():
            raise UserError(f"{key}={path}: no such run folder or file")


def _starts(config: Config) -> dict[str, str]:
    """Keys of the weights that training starts from or learns from, and their paths."""
    parts = {f"init.{part}": config.start(part) for part in ("from", "glance", "focus")}
    parts["teacher"] = config.teacher.checkpoint
    backbone = config.backbone
    weights = {"backbone.weights": backbone.weights, "backbone.glance_weights": backbone.glance_weights}
    named = {key: path for key, path in weights.items() if path not in ("imagenet", "none")}
    return {key: path for key, path in {**parts, **named}.items() if path is not None}
