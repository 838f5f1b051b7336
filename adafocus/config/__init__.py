"""The configuration: its types (schema, domains), what is typed (compose, naming, renamed), stored runs (stored) and checks.

The functions of `load` are names of this package too. They are looked up when they are used, so that commands which need
only a part of it, such as `adafocus zoo`, start without OmegaConf.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adafocus.config.load import (
        check,
        check_start,
        for_stage,
        from_dict,
        from_node,
        identity,
        plain,
        read,
        stages,
        stored_identity,
        to_dict,
    )

__all__ = [
    "check",
    "check_start",
    "for_stage",
    "from_dict",
    "from_node",
    "identity",
    "plain",
    "read",
    "stages",
    "stored_identity",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("adafocus.config.load"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
