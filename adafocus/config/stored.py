"""Reads the overrides that a run folder or a checkpoint stores, as untrusted data.

Hydra overrides can load files, start jobs and create objects. Therefore every stored override is parsed, its key must
be a key of the configuration and its value plain data, and a new override is written from both.

Paths of videos and lists are kept, because evaluating a run needs them; they are only read, and the overrides are
printed. Paths of weights and of other runs are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from adafocus import config
from adafocus.config import described, naming, renamed
from adafocus.config.compose import conf_folder
from adafocus.config.schema import Config
from adafocus.core import plugins
from adafocus.core.errors import UserError

#: Keys whose stored overrides are dropped: those of the run itself, and of weights and other runs that it used.
_ITS_OWN = (
    *naming.UNNAMED,
    *("mode", "checkpoint", "init", "teacher", "published", "early_exit.baseline"),
    *("backbone.weights", "backbone.glance_weights"),
)
_OPTION = re.compile(r"\w[\w+-]*")  # a file name in conf/GROUP, without path separators
_LONGEST = 4096


def from_folder(folder: Path, typed: Iterable[str]) -> list[str]:
    """Returns the stored overrides of a run folder that apply to a new command, checked as in `overrides`."""
    path = folder / "overrides.json"
    if not path.is_file():
        return []
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged; delete it and repeat the run's overrides on the command line") from error
    return overrides(said, typed, str(path))


def overrides(said: object, typed: Iterable[str], where: str) -> list[str]:
    """Checks a stored list of overrides and returns those that apply to a new command.

    Keys that the command sets itself, and keys that concern only the stored run, are left out.

    Args:
        said: the stored list.
        typed: keys that the command sets.
        where: name of the file, for messages.

    Raises:
        UserError: an entry is not a plain `key=value` with a key of this configuration.
    """
    if not isinstance(said, list):
        raise UserError(
            f"{where}: the stored overrides are not a list; delete it and repeat the overrides on the command line"
        )
    typed, found = set(typed), []
    for text in said:
        key, value, argument = _read(text, where)
        if key == "plugins":
            plugins.require(value if isinstance(value, list) else [], where)
        if key not in typed and not any(key == own or key.startswith(f"{own}.") for own in _ITS_OWN):
            config.plain({key: value}, where)
            found.append(argument)
    return found


def without_folders(overrides: Sequence[str], config: Config) -> list[str]:
    """Replaces networks `file/FOLDER` in overrides by name and options, so that the run does not need the folder."""
    kept = list(overrides)
    for role in ("focus", "glance"):
        key = f"backbone.{role}"
        folders = [text for text in kept if naming.key_of(text) == key and described.is_folder(text.partition("=")[2])]
        if folders:
            name, options = getattr(config.backbone, role), getattr(config.backbone, f"{role}_options")
            kept = [text for text in kept if naming.key_of(text) != key]
            kept = [text for text in kept if not naming.key_of(text).startswith(f"{key}_options")]
            refused = UserError(f"{key}_options={options} cannot be stored: only numbers, texts and lists of them can")
            kept += [f"{key}={_write(name, refused)}", f"+{key}_options={_write(options, refused)}"]
    return kept


def _read(text: object, where: str) -> tuple[str, Any, str]:
    """Parses one stored override to (key, value, override rewritten from them)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    refused = UserError(f"{where}: {str(text)[:80]!r} is not a plain key=value with a key of adafocus; remove it")
    if not isinstance(text, str) or len(text) > _LONGEST or not re.match(r"\+{0,2}\w", text):
        raise refused
    try:
        read = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError) as error:
        raise refused from error
    plus = {OverrideType.CHANGE: "", OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++"}.get(read.type)
    if plus is None or read.package is not None or read.is_sweep_override():
        raise refused
    key, value = renamed.KEYS.get(read.key_or_group, read.key_or_group), read.value()
    if isinstance(value, str):
        value = renamed.VALUES.get(key, renamed.VALUES.get(f"{key}.name", {})).get(value, value)
    if (conf_folder() / key).is_dir() and key.isidentifier():
        known = value is None or (not isinstance(value, bool) and _OPTION.fullmatch(str(value)))
    else:
        known = _is_leaf(key.split("."))
    if not known:
        raise refused
    return key, value, f"{plus}{key}={_write(value, refused)}"


def _is_leaf(parts: Sequence[str]) -> bool:
    """Returns whether the configuration has this key; in a dictionary any identifier is a key."""
    node: Any = Config()
    for part in parts:
        if isinstance(node, dict) and part.isidentifier() and not part.startswith("_"):
            return True
        if not is_dataclass(node) or part not in {field.name for field in fields(node)}:
            return False
        node = getattr(node, part)
    return not is_dataclass(node)


def _write(value: Any, refused: UserError) -> str:
    """Writes a plain value in Hydra's override syntax; texts are quoted."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if value is None or isinstance(value, (bool, int, float)):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(_write(item, refused) for item in value)}]"
    if isinstance(value, dict) and all(re.fullmatch(r"\w+", str(key)) for key in value):
        return "{" + ",".join(f"{key}:{_write(item, refused)}" for key, item in value.items()) + "}"
    raise refused
