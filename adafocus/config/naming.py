"""Processing of overrides before Hydra parses them: quoting of numeric options, and names of run folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

from adafocus.config.schema import RUNTIME
from adafocus.core.errors import UserError

#: YAML groups with numeric options. Hydra refuses `patch=128` as an integer, but accepts it quoted, as a name.
NUMERIC_GROUPS = ("patch", "segments", "stage")
#: Keys that do not affect results and are therefore not part of a run folder's name.
UNNAMED = (*RUNTIME, "hydra")
#: Keys whose values alone, in this order, are the beginning of a run folder's name.
_TELLING = ("checkpoint", "dataset.root", "dataset", "experiment", "method", "backbone", "protocol", "debug")
#: Keys with a YAML group for the same number, so that patch.size=128 gives the same folder name as patch=128.
_ALSO = {"patch.size": "patch", "segments.glance": "segments"}
#: Short forms on the command line -> key; possible because a section such as `teacher` has no value of its own.
_SHORT = {"teacher": "teacher.checkpoint", "logger": "output.loggers"}
_NUMBER = re.compile(r"(?<![\w.+'\"])(\d+)(?![\w.+'\"])")
_LONGEST = 80


def split_override(override: str) -> tuple[str, str]:
    """Returns (key, value) of an override, without `+`, `++` or `~`, with short forms replaced by full keys."""
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    return _SHORT.get(key, key), value


def key_of(override: str) -> str:
    """Returns the key of an override, without `+`, `++` or `~` before it."""
    return split_override(override)[0]


def unquoted(value: str) -> str:
    """Returns a value without quotes around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def quote_numbers(arguments: Iterable[str]) -> list[str]:
    """Converts overrides to the form that Hydra reads.

    Numeric options of YAML groups are quoted: `patch=96,128` becomes `patch='96','128'`. Short forms are replaced:
    `teacher=RUN` becomes `teacher.checkpoint=RUN`, and `logger=csv` becomes `output.loggers=[csv]`.
    """
    quoted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.lstrip("+") in NUMERIC_GROUPS:
            argument = key + "=" + _NUMBER.sub(r"'\1'", value)
        elif equals and key in _SHORT:
            single = key == "logger" and not value.startswith("[")
            argument = f"{_SHORT[key]}=[{value}]" if single else f"{_SHORT[key]}={value}"
        quoted.append(argument)
    return quoted


def check_name(name: str) -> str:
    """Checks the value of `name=`, the name of a folder in outputs/ or multirun/, and returns it.

    Raises:
        UserError: it is a path or hidden, or has characters that need quotes in a shell or in Hydra.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", str(name)) or len(str(name)) > 200:
        raise UserError(
            f"name={str(name)[:80]} cannot be a run's name: use letters, digits, '.', '_', '-' and '+', and begin with "
            f"a letter, a digit or '_' (hydra.run.dir=FOLDER puts a run anywhere else)"
        )
    return name


def folder_name(
    overrides: Sequence[str], *, without: Iterable[str] = (), texts: Mapping[tuple[str, str], str] | None = None
) -> str:
    """Makes a folder name of overrides, such as `sthv2_patch-128`; the same overrides give the same name.

    It has only letters, digits, `.`, `_`, `-` and `+`, so it needs no quotes in a shell or in Hydra. Two commands can
    give the same name (data folders whose paths end alike); then the run folder refuses the second command.

    Args:
        overrides: the overrides, in Hydra's order.
        without: keys that are left out, in a sweep those that all jobs share.
        texts: (key, value) -> text that replaces the value in the name, for values that would look the same.
    """
    skip, texts = {*UNNAMED, *without}, texts or {}
    typed: dict[str, str] = {}
    for override in overrides:
        key, value = split_override(override)
        # A shared group such as dataset=folder is left out, but not a key in its section such as dataset.fold=0.
        if key not in skip and re.split("[./]", key)[0] not in UNNAMED:
            typed[_ALSO.get(key, key)] = texts.get((key, value)) or _told(key, value)
    if "dataset.root" in typed and typed.get("dataset") == "folder":
        del typed["dataset"]
    first = [typed.pop(key) for key in _TELLING if key in typed]
    mode = [typed.pop("mode")] if "mode" in typed else []
    rest = [f"{_short(key)}-{typed[key]}" for key in sorted(typed, key=lambda key: ("." in key, key))]
    name = "_".join([*first, *rest, *mode]) or "default"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{crc32(name.encode()):08x}"


def _told(key: str, value: str) -> str:
    """Returns the text for a value in a folder name, with a hash if characters had to be left out."""
    value = unquoted(value)
    if key == "checkpoint":
        return _checkpoint(value)
    if "/" in value:
        path = Path(value)
        parts = [part for part in path.parts if part not in ("/", "..", ".", "~")]
        value = (parts or ["root"])[-1]
    return _plain(value)


def _checkpoint(value: str) -> str:
    """Returns the text for a checkpoint in a folder name: the run's name in outputs/, else file name and path hash."""
    path = Path(value).expanduser()
    known = [path.absolute().relative_to(home) for home in _homes() if path.absolute().is_relative_to(home)]
    if known and known[0].parts and ".." not in path.parts:
        return _plain("+".join([*known[0].parent.parts, known[0].stem if path.suffix in _FILES else known[0].name]))
    return f"{_plain(path.name)}-{_hash(str(path.absolute()))}"


_FILES = (".pt", ".pth", ".tar", ".safetensors")


def _homes() -> tuple[Path, Path]:
    return Path.cwd() / "outputs", Path.cwd() / "multirun"


def _plain(text: str) -> str:
    """Replaces all characters but letters, digits, `.`, `_`, `-` and `+` by `-`; then a hash is added if needed."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.") if not re.fullmatch(r"-[\d.]+", text) else text
    told = plain and (text.isascii() or len(plain) == len(text))
    return plain if told else f"{plain or 'x'}-{_hash(text)}"


@cache
def _ambiguous() -> frozenset[str]:
    """Returns last parts of keys that occur in several sections of the configuration or are names of YAML groups."""
    from adafocus.config.schema import Config

    def leaves(node: object) -> list[str]:
        if not is_dataclass(node):
            return []
        below = [getattr(node, field.name) for field in fields(node)]
        return [field.name for field in fields(node)] + [name for value in below for name in leaves(value)]

    return frozenset(name for name, times in Counter(leaves(Config())).items() if times > 1)


def _short(key: str) -> str:
    """Returns the last part of a key if it is unique or the key is in `schedule`; else the whole key."""
    section, _, last = key.rpartition(".")
    tells = section == "schedule" or (section.isidentifier() and last not in _ambiguous())
    return last if tells or not section else key.replace("/", ".").replace("@", ".")


def shared_keys(arguments: Iterable[str]) -> list[str]:
    """Returns the keys whose override has a single value, which all jobs of a sweep share."""
    return [key for key, value in map(split_override, arguments) if value and not swept(value)]


def swept(value: str) -> bool:
    """Returns whether a value is several values: commas outside brackets and quotes, or a call such as range(1,4)."""
    bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in bare or bool(re.match(r"(choice|range|glob|interval)\(", value))


def distinct(arguments: Iterable[str]) -> dict[tuple[str, str], str]:
    """Returns texts for values of a sweep whose names would be equal: with one more part of the path, or a hash."""
    texts: dict[tuple[str, str], str] = {}
    for key, value in map(split_override, arguments):
        values = [part.strip() for part in value.split(",")] if swept(value) and "(" not in value else []
        told = Counter(_told(key, part) for part in values)
        longer = {part: _plain("+".join(Path(unquoted(part)).parts[-2:]).replace("/", "")) for part in values}
        for part in values:
            if told[_told(key, part)] > 1:
                unique = list(longer.values()).count(longer[part]) == 1
                texts[key, part] = longer[part] if unique else f"{longer[part]}-{_hash(part)}"
    return texts


def _hash(text: str) -> str:
    return f"{crc32(text.encode(errors='surrogateescape')):08x}"[:4]
