"""The configuration: types (schema), overrides (compose, naming, renamed, stored), checks (load, effects).

The functions of `load` and `same_run` can be imported from this package. These modules are imported when they are
first used, so that commands that do not need them, such as `adafocus zoo`, start without OmegaConf.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adafocus.config.load import (
        amounts_of,
        check,
        check_start,
        for_stage,
        from_dict,
        from_node,
        plain,
        read,
        stages,
        to_dict,
    )
    from adafocus.config.same_run import identity, stored_identity

__all__ = [
    "amounts_of",
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
        home = "same_run" if name in ("identity", "stored_identity") else "load"
        return getattr(import_module(f"adafocus.config.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
