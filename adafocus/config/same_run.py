"""The identity of a run: the part of its configuration that a command must repeat to resume the run in a folder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adafocus.config.load import from_dict, to_dict
from adafocus.config.schema import ABOUT, RUNTIME
from adafocus.core.errors import UserError


def identity(values: dict[str, Any], unread: Collection[str] = ()) -> dict[str, Any]:
    """Returns the part of a configuration that identifies the run, without the keys in `unread`."""
    left_out = {*RUNTIME, *ABOUT, *unread}

    def kept(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in part.items()
            if f"{prefix}{key}" not in left_out
        }

    return kept(values)


def stored_identity(values: dict[str, Any] | None, unread: Collection[str] = ()) -> dict[str, Any] | None:
    """Returns the identity of a stored configuration; keys that are newer than the run get their defaults."""
    if values is None:
        return None
    try:
        return identity(to_dict(from_dict(values)), unread)
    except UserError:  # a version with other keys wrote it, so it identifies another run
        return identity(values, unread)
