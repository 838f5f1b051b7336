"""What makes two runs the same run: a folder goes on with the run that it holds, and refuses every other one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adafocus.config.load import from_dict, to_dict
from adafocus.config.schema import ABOUT, RUNTIME
from adafocus.core.errors import UserError


def identity(values: dict[str, Any], unread: Collection[str] = ()) -> dict[str, Any]:
    """The part of a configuration that makes two runs the same run; without keys that nothing reads in this one."""
    left_out = {*RUNTIME, *ABOUT, *unread}

    def kept(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in part.items()
            if f"{prefix}{key}" not in left_out
        }

    return kept(values)


def stored_identity(values: dict[str, Any] | None, unread: Collection[str] = ()) -> dict[str, Any] | None:
    """The identity of a configuration that a run folder holds; keys that are newer than the run have their defaults."""
    if values is None:
        return None
    try:
        return identity(to_dict(from_dict(values)), unread)
    except UserError:  # it is of a version with other keys: then it is another configuration
        return identity(values, unread)
