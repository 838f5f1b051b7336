"""Names that earlier versions gave to what checkpoints hold, as they are called now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BACKBONES = re.compile(r"^(glance|focus)\.")


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A network's state under its present keys: version 0.1 called the backbones `glance` and `focus`."""
    return {_BACKBONES.sub(r"\1_net.", key): value for key, value in state.items()}


def current_checkpoint(content: Mapping[str, Any]) -> dict[str, Any]:
    """A training checkpoint with present names: the optimizer's state was `optimiser` in version 0.1."""
    renamed = {"optimizer" if key == "optimiser" else key: value for key, value in content.items()}
    if isinstance(renamed.get("model"), Mapping):
        renamed["model"] = current_state(renamed["model"])
    return renamed
