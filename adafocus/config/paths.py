"""Checks that the files and folders that a configuration names exist, before anything is created."""

from __future__ import annotations

from pathlib import Path

from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.core.files import is_address


def check(config: Config, *, fresh: bool) -> None:
    """Checks that the paths in a configuration exist.

    Args:
        config: the configuration.
        fresh: whether training starts. A resumed run does not need the weights that it started from.

    Raises:
        UserError: a path does not exist; the message names the first one with its key.
    """
    root = config.dataset.root
    if config.dataset.source == "files" and root and not is_address(root) and not Path(root).expanduser().is_dir():
        raise UserError(f"dataset.root={root} is not a folder")
    for key, path in _starts(config).items() if config.mode == "train" and fresh else ():
        if not Path(path).expanduser().exists():
            raise UserError(f"{key}={path}: there is no such run folder or file")


def _starts(config: Config) -> dict[str, str]:
    """Returns key -> path of the weights that training starts from, and of the teacher."""
    parts = {f"init.{part}": config.start(part) for part in ("from", "glance", "focus")}
    parts["teacher"] = config.teacher.checkpoint
    backbone = config.backbone
    weights = {"backbone.weights": backbone.weights, "backbone.glance_weights": backbone.glance_weights}
    named = {key: path for key, path in weights.items() if path not in ("imagenet", "none")}
    return {key: path for key, path in {**parts, **named}.items() if path is not None}
