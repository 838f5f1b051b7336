"""Renames keys of checkpoints from earlier versions of this package to the current names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BACKBONES = re.compile(r"^(glance|focus)\.")


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the keys of a network's state dict; version 0.1 called the backbones `glance` and `focus`."""
    return {_BACKBONES.sub(r"\1_net.", key): value for key, value in state.items()}


def current_checkpoint(content: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the keys of a training checkpoint; version 0.1 called the optimizer's state `optimiser`."""
    renamed = {"optimizer" if key == "optimiser" else key: value for key, value in content.items()}
    if isinstance(renamed.get("model"), Mapping):
        renamed["model"] = current_state(renamed["model"])
    return renamed
