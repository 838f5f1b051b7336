"""The configuration: types (schema, domains), overrides (compose, naming, renamed, stored), checks (load, effects)."""

from adafocus.config.load import (
    check,
    check_start,
    for_stage,
    from_dict,
    from_node,
    identity,
    own_widths,
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
    "own_widths",
    "plain",
    "read",
    "stages",
    "stored_identity",
    "to_dict",
]
