"""Plug-ins: Python modules that a command names and that register backbones, methods and the like when imported.

Importing runs code. Therefore only plug-ins on this command line are imported, and installed packages with an entry
point in the group `adafocus.plugins`. A checkpoint or run folder only lists the plug-ins that it needs.
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

#: The plug-ins that this process has imported: name -> module.
LOADED: dict[str, ModuleType] = {}


def load(names: Iterable[str] = ()) -> None:
    """Imports plug-ins that a command names, and installed ones with an entry point, each once per process.

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
    """Checks that the plug-ins that a stored configuration needs are imported; imports nothing.

    Args:
        names: the plug-ins in the stored configuration, which is not trusted.
        where: name of the file that needs them, for the message.

    Raises:
        UserError: plug-ins are missing; the message says how to name them.
    """
    known = {_key(name) for name in LOADED} | sys.modules.keys()
    if missing := [name for name in names if _key(name) not in known]:
        raise UserError(
            f"{where} needs plug-ins, which are code and are imported only if you name them: "
            f"plugins=[{','.join(missing)}] of `adafocus run`, {' '.join(f'--plugins {name}' for name in missing)} of "
            f"the other "
            f"commands, or an import in Python"
        )


def conf_folders() -> dict[str, Path]:
    """Returns the `conf/` folder of each plug-in that has one: in its package, or next to its file."""
    found = {}
    for name, module in LOADED.items():
        if module.__file__ is not None and (folder := Path(module.__file__).resolve().parent / "conf").is_dir():
            found[name] = folder
    return found


def _key(name: str) -> str:
    """Returns the name by which plug-ins are compared; of a file without its folder, which differs between machines."""
    return Path(name).name if name.endswith(".py") else name


@cache
def _load_installed() -> None:
    for entry in metadata.entry_points(group="adafocus.plugins"):
        module = entry.load()
        if not isinstance(module, ModuleType):
            raise UserError(f"the entry point {entry.name} of adafocus.plugins is {entry.value}, which is not a module")
        LOADED[module.__name__] = module


def _from_name(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:  # `python run.py` and `adafocus` do not look there by themselves
        sys.path.append(here)
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"plug-in {name!r} must be the dotted name of a module or a .py file")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise  # the module exists, but a module that it imports does not
        raise UserError(
            f"plug-in {name!r} cannot be imported: there is no module {missing!r} in {Path.cwd()} or among the "
            f"installed ones"
        ) from error


def _from_file(name: str) -> ModuleType:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"plug-in {name!r}: there is no such file; give its path")
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
