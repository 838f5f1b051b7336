"""The configuration: its types (schema, domains), what is typed (compose, naming, renamed, stored), and its checks (load,
effects)."""

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
