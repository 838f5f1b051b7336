"""Plug-ins: Python code of others that a command names, imported so that it can register what it adds.

Importing runs code. So only what was typed for this command is imported, and installed packages with an entry point of
the group `adafocus.plugins`. A checkpoint or a run folder only says which plug-ins it needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module, metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from zlib import crc32

from adafocus.core.errors import UserError

#: What this process has imported: plug-ins as they were named, and what they are.
LOADED: dict[str, ModuleType] = {}


def load(names: Iterable[str] = ()) -> None:
    """Imports plug-ins that a command names, and those that are installed with an entry point; each once a process.

    Args:
        names: dotted names of modules, which may lie in the current folder, or paths of .py files.

    Raises:
        UserError: there is no such module or file, or it registers a name that is taken.
    """
    _load_installed()
    for name in names:
        if name not in LOADED:
            LOADED[name] = _from_file(name) if name.endswith(".py") else _from_name(name)


def require(names: Iterable[str], where: str) -> None:
    """Refuses what needs plug-ins that are not imported here; imports nothing.

    Args:
        names: plug-ins that a stored configuration names; data of somebody.
        where: what needs them, for the message.

    Raises:
        UserError: which to name.
    """
    known = {_key(name) for name in LOADED} | sys.modules.keys()
    if missing := [name for name in names if _key(name) not in known]:
        raise UserError(
            f"{where} needs plug-ins, which are code and are imported only if you name them: "
            f"plugins=[{','.join(missing)}] of `adafocus run`, "
            f"{' '.join(f'--plugins {name}' for name in missing)} of the other "
            f"commands, or an import in Python"
        )


def conf_folders() -> dict[str, Path]:
    """By plug-in, the `conf/` that lies beside its module: in a package, or in the folder of a single file."""
    found = {}
    for name, module in LOADED.items():
        if module.__file__ is not None and (folder := Path(module.__file__).resolve().parent / "conf").is_dir():
            found[name] = folder
    return found


def _key(name: str) -> str:
    """A file is known by its name alone: the folder may be another one on another machine."""
    return Path(name).name if name.endswith(".py") else name


@cache
def _load_installed() -> None:
    for entry in metadata.entry_points(group="adafocus.plugins"):
        module = entry.load()
        if not isinstance(module, ModuleType):
            raise UserError(f"the entry point {entry.name} of adafocus.plugins is {entry.value}, which is no module")
        LOADED[module.__name__] = module


def _from_name(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:  # `python run.py` and `adafocus` do not look there by themselves
        sys.path.append(here)
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"plug-in {name!r} is neither the dotted name of a module nor a .py file")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise  # it is there, and imports something that is not
        raise UserError(
            f"plug-in {name!r} cannot be imported: there is no module {missing!r} in {Path.cwd()} or among the "
            f"installed ones"
        ) from error


def _from_file(name: str) -> ModuleType:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"plug-in {name!r}: there is no such file")
    spec = spec_from_file_location(f"adafocus_plugin_{path.stem}_{crc32(str(path).encode()):08x}", path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # what it defines can be pickled and found again
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
