"""The first part of a job: checks its configuration and locks its folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adafocus import config
from adafocus.config import effects, naming, paths, stored
from adafocus.config.compose import said
from adafocus.config.schema import Config
from adafocus.core.files import read_json
from adafocus.runs import folder as folders
from adafocus.runs.launch import adopt_processes
from adafocus.runs.table import show


@contextmanager
def begin(
    node: Any, folder: Path, overrides: list[str], choices: dict[str, str], typed: Collection[str]
) -> Iterator[Config | None]:
    """Checks a composed configuration, and locks the run folder while the context lasts.

    The context yields the configuration, or None if the job is done already: with `mode=cost`, which prints the costs,
    or if the folder holds the finished run, whose summary is printed.

    Args:
        node: the composed configuration.
        folder: the run folder.
        overrides: all overrides of the configuration.
        choices: the chosen option of each YAML group.
        typed: the keys that are set on the command line.

    Raises:
        UserError: the configuration is wrong, or the folder is in use or holds another run.
    """
    adopt_processes()
    settings = config.from_node(node, said(overrides))
    effects.check(settings, (key for key in map(naming.key_of, overrides) if key in typed))
    if settings.mode == "cost":
        from adafocus.runs.job import report_cost

        report_cost(settings, folder)
        yield None
        return
    values, unread = config.to_dict(settings), effects.unread(settings)

    def inspect() -> str:
        held = folders.stored_config(folder) if settings.mode == "train" else None
        return folders.inspect(folder, config.identity(values, unread), config.stored_identity(held, unread))

    state = inspect()
    if state != folders.FINISHED:
        fresh = state == folders.NEW
        paths.check(settings, fresh=fresh)
        if any(
            "/" in name for name in (settings.backbone.glance, settings.backbone.focus)
        ):  # others need no torch here
            from adafocus import build

            build.check_networks(settings, fresh=fresh and settings.mode == "train")
        if _rank():  # torchrun, srun or mpirun started the processes; only rank 0 locks and writes the folder
            yield settings
            return
        with folders.claim(folder, fresh=fresh):
            if inspect() != folders.FINISHED:  # another process may have finished the run before the lock was free
                kept = stored.without_folders(overrides, settings)
                folders.describe(folder, values, overrides=kept, choices=choices)
                yield settings
                return
    if not _rank():
        sys.stderr.write("this run is finished; its summary:\n")
        show(folder, read_json(folder / "summary.json", dict))
    yield None


def _rank() -> int:
    return int(os.environ.get("RANK", 0))
