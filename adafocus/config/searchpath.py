"""Adds the `conf/` folders of plug-ins to Hydra's search path, after that of this package."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from adafocus.config.schema import GROUPS
from adafocus.core import plugins
from adafocus.core.errors import UserError


class PluginFolders(SearchPathPlugin):
    """Hydra plug-in that is called whenever a configuration is composed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends the `conf/` folders of the plug-ins that are imported."""
        for name, folder in plugins.conf_folders().items():
            search_path.append(f"adafocus plug-in {name}", f"file://{folder}")


def add_folders(ours: Path) -> None:
    """Adds the `conf/` folders of the plug-ins that are imported to Hydra's search path.

    Args:
        ours: the `conf/` folder of this package.

    Raises:
        UserError: an option of a plug-in has the name of an earlier one, which would hide it.
    """
    taken = {
        (group, path.stem): "adafocus"
        for group in (*GROUPS, "debug", "experiment")
        for path in ours.glob(f"{group}/*.yaml")
    }
    for name, folder in plugins.conf_folders().items():
        if folder == ours.resolve():
            continue
        for group in (*GROUPS, "debug", "experiment"):
            for path in sorted(folder.glob(f"{group}/*.yaml")):
                owner = taken.setdefault((group, path.stem), name)
                if owner != name:
                    raise UserError(
                        f"{path}: {owner} already has an option {group}={path.stem}; give this one another name"
                    )
    Plugins.instance().register(PluginFolders)
