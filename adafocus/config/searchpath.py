"""The `conf/` folders of plug-ins in Hydra's search path, after our own."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from adafocus.config.schema import GROUPS
from adafocus.core import plugins
from adafocus.core.errors import UserError


class PluginFolders(SearchPathPlugin):
    """Asked by Hydra when a configuration is composed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds the folders."""
        for name, folder in plugins.conf_folders().items():
            search_path.append(f"adafocus plug-in {name}", f"file://{folder}")


def add_folders(ours: Path) -> None:
    """Lets Hydra find the options of the plug-ins that are imported.

    Args:
        ours: our own folder.

    Raises:
        UserError: an option of a plug-in has the name of another one, which would hide it.
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
