"""What a run folder or a checkpoint says was typed for its run: data of somebody, never arguments as they stand.

Hydra's command line can load files, start jobs and choose objects that are made. So every stored override is taken
apart, its key must be one of the configuration's own, its value plain, and the argument is written anew from both.

Paths of videos and lists are taken over, since an evaluation of one's own run needs them. They are read, and what is taken
over is printed; everything that is written goes into the folder of the new run. Paths of weights and other runs stay there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from adafocus import config
from adafocus.config import naming, renamed
from adafocus.config.compose import conf_folder
from adafocus.config.schema import Config
from adafocus.core import plugins
from adafocus.core.errors import UserError

#: What is about that run alone. Weights, and runs that it started from or stood beside, are no part of the network.
_ITS_OWN = (*naming.UNNAMED, "mode", "checkpoint", "init", "published", "early_exit.baseline")
_ITS_OWN += ("backbone.weights", "backbone.glance_weights")
_OPTION = re.compile(r"\w[\w+-]*")  # the name of a file in conf/GROUP, and no way out of that folder
_LONGEST = 4096


def from_folder(folder: Path, typed: Iterable[str]) -> list[str]:
    """What was typed for the run of a folder, as overrides for another; see `overrides`."""
    path = folder / "overrides.json"
    if not path.is_file():
        return []
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged; delete it and type what the run needs") from error
    return overrides(said, typed, str(path))


def overrides(said: object, typed: Iterable[str], where: str) -> list[str]:
    """What was typed for another run and is neither typed again nor about that run only.

    Args:
        said: the stored list.
        typed: keys that are typed now.
        where: the file, for messages.

    Raises:
        UserError: something there is no plain `key=value` of this configuration.
    """
    if not isinstance(said, list):
        raise UserError(f"{where}: what was typed for the run is no list; delete it and type what the run needs")
    typed, found = set(typed), []
    for text in said:
        key, value, argument = _read(text, where)
        if key == "plugins":
            plugins.require(value if isinstance(value, list) else [], where)
        if key not in typed and not any(key == own or key.startswith(f"{own}.") for own in _ITS_OWN):
            config.plain({key: value}, where)
            found.append(argument)
    return found


def _read(text: object, where: str) -> tuple[str, Any, str]:
    """(key, value, the override written anew) of one stored override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    refused = UserError(f"{where}: {str(text)[:80]!r} is no plain key=value of this configuration; it is not read")
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
        value = renamed.VALUES.get(key, {}).get(value, value)
    if (conf_folder() / key).is_dir() and key.isidentifier():
        known = value is None or (not isinstance(value, bool) and _OPTION.fullmatch(str(value)))
    else:
        known = _is_leaf(key.split("."))
    if not known:
        raise refused
    return key, value, f"{plus}{key}={_write(value, refused)}"


def _is_leaf(parts: Sequence[str]) -> bool:
    """Whether the configuration has a key of this path; below a dictionary any word is one."""
    node: Any = Config()
    for part in parts:
        if isinstance(node, dict) and part.isidentifier() and not part.startswith("_"):
            return True
        if not is_dataclass(node) or part not in {field.name for field in fields(node)}:
            return False
        node = getattr(node, part)
    return not is_dataclass(node)


def _write(value: Any, refused: UserError) -> str:
    """A plain value in Hydra's grammar; every text is quoted."""
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
