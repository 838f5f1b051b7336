"""The console command and the way from a command line to a job."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from adafocus import naming
from adafocus.errors import UserError

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
#: Where a choice without a file belongs: a number can be set directly.
LEAVES = {"patch": "patch.size", "segments": "segments.glance"}


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


def conf_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"no conf/ folder in {package} or beside it; the installation is incomplete")


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
        _register(arguments)
        sys.argv = ["adafocus run", *arguments]
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(outcome.job)()
    except UserError as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(UserError(explain(error, _unparsable(arguments))))
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


def compose(typed: list[str]) -> Any:
    """The typed configuration of these overrides, without a run."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from adafocus import config

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = naming.quote_numbers(typed)
    try:
        _register(arguments)
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return config.from_node(hydra_compose("config", arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, _unparsable(arguments))) from error


def _unparsable(arguments: list[str]) -> str | None:
    """The first override that Hydra's grammar refuses."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for argument in arguments:
        try:
            if not argument.startswith("-"):
                parser.parse_override(argument)
        except HydraException:
            return argument
    return None


def explain(error: Exception, unparsable: str | None = None) -> str:
    """Hydra's and OmegaConf's errors as one line: what is wrong, and what to type instead."""
    import re

    if unparsable is not None:
        return f"cannot read {unparsable!r}; an override is key=value, and a value with commas or brackets needs quotes"
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = " ".join(" ".join(str(cause).split()) for cause in causes[:2])
    missing = re.search(r"(?:Could not find|In '[^']*': Could not (?:find|load)) '(\w+)/([^']+)'", text)
    if missing:
        group, option = missing.groups()
        options = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
        leaf = LEAVES.get(group)
        hint = f"; for a size that has no file set {leaf}={option}" if leaf and option.isdigit() else ""
        if group == "schedule":
            hint = "; this method has no recipe for this dataset: choose a schedule"
        return f"{group}={option} is no option; choose one of {', '.join(options)}{hint}"
    unknown = re.search(r"Key '([^']+)' is not in struct|Key '([^']+)' not in '(\w+)'", text)
    override = re.search(r"Could not override '([^']+)'", text)
    if override and unknown:
        return f"{override.group(1)} is not a key of the configuration; `python run.py --cfg job` shows all keys"
    full_key = re.search(r"full_key: ([\w.]+)", text)
    where = f"{full_key.group(1)}: " if full_key else ""
    text = re.split(r"\s*(?:full_key|reference_type|object_type):|\s+Set the environment variable", text)[0]
    return f"configuration: {where}{text.strip()}"


def _register(arguments: list[str]) -> None:
    """The schema, and the resolver that names folders after what was typed."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from adafocus.schema import Config

    ConfigStore.instance().store(name="schema", node=Config)
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    shared = naming.shared_keys(overrides)
    OmegaConf.register_new_resolver("div", lambda whole, part: int(whole) // int(part), replace=True)
    OmegaConf.register_new_resolver(
        "run_name", lambda name, typed: name or naming.folder_name(list(typed)), replace=True
    )
    # All jobs of a sweep are in one folder, which is named after the whole command and not after one job.
    whole = naming.folder_name(overrides)
    OmegaConf.register_new_resolver("sweep_name", lambda name: name or whole, replace=True)
    OmegaConf.register_new_resolver(
        "job_name", lambda typed: naming.folder_name(list(typed), without=shared), replace=True
    )


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
