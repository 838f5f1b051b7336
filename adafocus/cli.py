"""The console command and the way from a command line to a job."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from adafocus import naming
from adafocus.composing import conf_folder, explain, first_unparsable, register
from adafocus.core.errors import UserError

USAGE = """usage: adafocus COMMAND ...

  run       train, evaluate or count: `adafocus run dataset=glyphs` (the same as `python run.py ...`)
  compare   table, CSV and plot of run folders: `adafocus compare outputs/*`
  convert   a checkpoint, also of a seed project, under our names: `adafocus convert FILE OUT.safetensors`
  export    networks as programs for use elsewhere: `adafocus export RUN [--onnx]`
  predict   labels of videos, or the running label of a stream: `adafocus predict RUN_OR_FILE VIDEO [--online]`
  prepare   lists and frames of a data set, check of every video: `adafocus prepare sthv2 ...`, `adafocus prepare check FOLDER`
  zoo       every published model: score, cost, commands: `adafocus zoo [NAME]`

`adafocus COMMAND --help` says more.
"""
INTERRUPTED = 130  # exit status after Ctrl-C
#: Commands beside `run`; each has its own arguments and is imported only when it is used.
TOOLS = {
    "compare": "adafocus.compare",
    "convert": "adafocus.tools.convert",
    "export": "adafocus.tools.export",
    "predict": "adafocus.tools.predict",
    "prepare": "adafocus.tools.prepare",
    "zoo": "adafocus.tools.zoo",
}
GROUPS = ("dataset", "method", "backbone", "patch", "segments", "stage", "schedule", "protocol")


def main(argv: list[str] | None = None) -> int:
    """`adafocus COMMAND ...`; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "run":
        return run(rest)
    if command in TOOLS:
        try:
            return import_module(TOOLS[command]).main(rest)
        except UserError as error:
            return _say(error)
        except KeyboardInterrupt:
            return INTERRUPTED
    sys.stderr.write(USAGE)
    return 0 if command in ("-h", "--help", "help") else 2


def _say(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


def run(argv: list[str]) -> int:
    """One job, or with -m a sweep of them, described by Hydra overrides; returns the exit status."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # With this set Hydra raises instead of printing several lines and a hint, and we say it in one.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    outcome = _Outcome()
    try:
        arguments = naming.quote_numbers(_completed(naming.inherit(argv)))
        register(arguments)
        sys.argv = ["adafocus run", *arguments]
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(outcome.job)()
    except UserError as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(UserError(explain(error, first_unparsable(arguments))))
    except KeyboardInterrupt:
        return INTERRUPTED
    return outcome.finish()


def _completed(arguments: list[str]) -> list[str]:
    """For `mode=evaluate checkpoint=FILE`: what the file says about its network, before what was typed, which wins."""
    typed = {naming.split_override(argument)[0]: argument for argument in arguments if "=" in argument}
    if typed.get("mode") not in ("mode=evaluate", "mode=early_exit") or "checkpoint" not in typed:
        return arguments
    path = Path(naming.split_override(typed["checkpoint"])[1].strip("'\"")).expanduser()
    if not path.is_file():
        return arguments
    from adafocus.predict import stored_overrides

    said = stored_overrides(path, arguments)
    if said:
        sys.stderr.write(f"{path} says: {' '.join(said)}\n")
    return [*said, *arguments]


class _Outcome:
    """What became of the jobs of one command."""

    def __init__(self) -> None:
        self.codes: dict[Path, int] = {}
        self.sweep: Path | None = None

    def job(self, node: Any) -> None:
        """One job, called by Hydra's launcher. In a sweep a failing job is noted, and the next one runs."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra_node = HydraConfig.get()
        folder = Path(hydra_node.runtime.output_dir)
        choices = {group: str(hydra_node.runtime.choices[group]) for group in GROUPS}
        overrides = list(hydra_node.overrides.task)
        sweep = hydra_node.mode == RunMode.MULTIRUN
        if sweep:
            self.sweep = Path(hydra_node.sweep.dir)
            sys.stderr.write(f"--- {folder.name}\n")
        try:
            self.codes[folder] = start(node, folder, overrides, choices)
        except UserError as error:
            self.codes[folder] = _say(error)
            if sweep and not (folder / "config.json").exists():  # a folder that holds another run is not touched
                from adafocus.engine.status import write_status

                write_status(folder, "failed", error=str(error))
        if sweep:
            from adafocus.compare import write_comparison

            write_comparison(self.sweep)
            if self.codes[folder] == INTERRUPTED:
                raise KeyboardInterrupt  # the user means the sweep, not one of its jobs

    def finish(self) -> int:
        """The exit status of the command; after a sweep, the comparison and the list of failures."""
        failed = {folder: code for folder, code in self.codes.items() if code}
        if self.sweep is not None:
            from adafocus.compare import main as compare

            compare([str(self.sweep), "--mix-protocols"])
            sys.stdout.write(f"comparison: {self.sweep / 'compare.md'}\n")
            for folder in failed:
                sys.stderr.write(f"failed: {folder}\n")
            return 1 if failed else 0
        return next(iter(self.codes.values()), 0)


def start(node: Any, folder: Path, overrides: list[str], choices: dict[str, str]) -> int:
    """Checks a composed configuration, claims its folder and does the job; returns the exit status."""
    from adafocus import config
    from adafocus.engine import folder as folders
    from adafocus.engine.files import read_json
    from adafocus.engine.launch import launch, under_torchrun

    settings = config.from_node(node)
    if settings.mode == "cost":
        from adafocus.worker import report_cost

        return report_cost(settings, folder)
    values = config.to_dict(settings)
    stored = read_json(folder / "config.json") if settings.mode == "train" else None
    state = folders.inspect(folder, config.identity(values), config.stored_identity(stored))
    first = int(os.environ.get("RANK", 0)) == 0
    if state == folders.FINISHED:
        from adafocus.engine.table import show

        if first:
            sys.stderr.write("this run is finished; its summary:\n")
            show(folder, read_json(folder / "summary.json"))
        return 0
    if first:
        folders.describe(folder, values, overrides=overrides, choices=choices)
    if settings.inline or under_torchrun():
        from adafocus.worker import run as work

        return work(folder, settings)
    return launch(folder, settings.devices)


def main_and_exit() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    main_and_exit()
