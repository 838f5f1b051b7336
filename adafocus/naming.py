"""What is typed, before Hydra reads it: numeric choices of groups, names of run folders, choices of an older run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

#: Groups whose options are numbers. Hydra reads `patch=128` as an integer and stops; quoted it is an option's name.
NUMERIC_GROUPS = ("patch", "segments", "stage")
#: Overrides that do not make another run, so that they are not part of its folder's name.
UNNAMED = ("name", "device", "devices", "inline", "loader", "output", "hydra")
_NUMBER = re.compile(r"(?<![\w.+'\"])(\d+)(?![\w.+'\"])")
_LONGEST = 120


def split_override(override: str) -> tuple[str, str]:
    """(key, value) of an override, without `+`, `++` or `~` before the key."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def quote_numbers(arguments: Iterable[str]) -> list[str]:
    """Quotes purely numeric choices: `patch=96,128` becomes `patch='96','128'`; `segments=8+12` stays."""
    quoted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.lstrip("+") in NUMERIC_GROUPS:
            argument = key + "=" + _NUMBER.sub(r"'\1'", value)
        quoted.append(argument)
    return quoted


def folder_name(overrides: Sequence[str], *, without: Iterable[str] = (), default: str = "default") -> str:
    """A folder name of what was typed: `dataset=sthv2,patch=128`. The same overrides give the same name.

    Args:
        overrides: as Hydra lists them.
        without: keys that are left out (in a sweep: those that all jobs share).
        default: the name when nothing is left.
    """
    skip = {*UNNAMED, *without}
    parts = []
    for override in sorted(overrides):
        key, value = split_override(override)
        if (
            key in skip or key.split(".")[0] in UNNAMED
        ):  # dataset=folder, which all jobs share, does not hide dataset.fold=0
            continue
        value = value.replace("'", "").replace('"', "")
        if "/" in value:  # a path: its last part is readable, its hash keeps two of them apart
            value = f"{Path(value).name}-{crc32(value.encode()) & 0xFFFF:04x}"
        parts.append(re.sub(r"[^\w.,=+-]", "_", f"{key}={value}"))
    name = ",".join(parts) or default
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}-{crc32(name.encode()):08x}"
    return name


def shared_keys(arguments: Iterable[str]) -> list[str]:
    """Keys whose override holds one value only: they do not tell the jobs of a sweep apart."""
    keys = []
    for argument in arguments:
        key, value = split_override(argument)
        # Commas inside brackets or quotes belong to one value; a call such as range(1,4) is a sweep.
        bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
        if "=" in argument and "," not in bare and not re.match(r"(choice|range|glob|interval)\(", value):
            keys.append(key)
    return keys


def inherit(arguments: Sequence[str]) -> list[str]:
    """For `mode=evaluate checkpoint=RUN`: what was typed for that run, before what is typed now, which wins."""
    typed = {split_override(argument)[0]: argument for argument in arguments if "=" in argument}
    if typed.get("mode") not in ("mode=evaluate", "mode=early_exit") or "checkpoint" not in typed:
        return list(arguments)
    stored = Path(split_override(typed["checkpoint"])[1].strip("'\"")).expanduser() / "overrides.json"
    if not stored.is_file():
        return list(arguments)
    return [*outlasting(json.loads(stored.read_text(encoding="utf-8")), typed), *arguments]


def outlasting(older: Iterable[str], typed: Iterable[str]) -> list[str]:
    """What was typed for another run and is neither typed again nor about that run only."""
    typed = set(typed)
    return [
        override
        for override in older
        if (key := split_override(override)[0]) not in typed
        and key.split(".")[0] not in (*UNNAMED, "mode", "checkpoint")
    ]
