"""Configurations as a command line composes them."""

from __future__ import annotations

from pathlib import Path

from adafocus import config
from adafocus.config import compose as composing

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*typed: str) -> config.Config:
    """The checked configuration of `python run.py TYPED...`."""
    return composing.compose(list(typed))
