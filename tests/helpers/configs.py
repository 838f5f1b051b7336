"""Helper: the configuration that a command line composes."""

from __future__ import annotations

from pathlib import Path

from adafocus import config
from adafocus.config import compose as composing

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*typed: str) -> config.Config:
    """The checked configuration of the command `python run.py TYPED...`."""
    return composing.compose(list(typed))
