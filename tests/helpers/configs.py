"""Configurations as a command line composes them."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir

from adafocus import composing, config, naming

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*typed: str) -> config.Config:
    """The checked configuration of `python run.py TYPED...`."""
    arguments = naming.quote_numbers(typed)
    composing.register(arguments)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return config.from_node(compose("config", arguments))
