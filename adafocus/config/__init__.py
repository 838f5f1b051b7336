"""The configuration: its types (schema, domains), what is typed (compose, naming, renamed), stored runs (stored) and checks.

The functions of `load` and `same_run` are names of this package too. They are looked up when they are used, so that commands which need
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
        own_widths,
        plain,
        read,
        stages,
        to_dict,
    )
    from adafocus.config.same_run import identity, stored_identity

__all__ = [
    "check",
    "check_start",
    "for_stage",
    "from_dict",
    "from_node",
    "identity",
    "own_widths",
    "plain",
    "read",
    "stages",
    "stored_identity",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "same_run" if name in ("identity", "stored_identity") else "load"
        return getattr(import_module(f"adafocus.config.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
