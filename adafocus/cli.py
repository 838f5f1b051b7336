"""The console command and the way from a command line to a job."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from adafocus import naming
from adafocus.errors import UserError

USAGE = """usage: adafocus COMMAND ...

  run       train, evaluate or count: `adafocus run dataset=glyphs` (the same as `python run.py ...`)
  compare   table, CSV and plot of run folders: `adafocus compare outputs/*`
  prepare   check of every video of a data set: `adafocus prepare check FOLDER`

`adafocus COMMAND --help` says more.
"""
INTERRUPTED = 130  # exit status after Ctrl-C
GROUPS = ("dataset", "method", "backbone", "patch", "segments", "stage", "schedule", "protocol")
#: Where a choice without a file belongs: a number can be set directly.
LEAVES = {"patch": "patch.size", "segments": "segments.glance"}


def main(argv: list[str] | None = None) -> int:
    """`adafocus COMMAND ...`; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "run":
        return run(rest)
    if command in ("compare", "prepare"):
        try:
            if command == "compare":
                from adafocus.compare import main as compare

                return compare(rest)
            return prepare(rest)
        except UserError as error:
            return _say(error)
    sys.stderr.write(USAGE)
    return 0 if command in ("-h", "--help", "help") else 2


def _say(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


def prepare(argv: list[str]) -> int:
    """`adafocus prepare check FOLDER`: decodes every file once and writes the list of bad ones."""
    parser = argparse.ArgumentParser(prog="adafocus prepare", description="Tools for data sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="decode every video once; writes bad.txt and check.json")
    check.add_argument("root", type=Path, help="folder with train.txt/val.txt lists or class folders of videos")
    check.add_argument("--output", type=Path, default=None, help="where to write (default: the folder itself)")
    check.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    check.add_argument("--timeout", type=float, default=60.0, help="seconds that one file may take")
    options = parser.parse_args(argv)
    from rich.progress import Progress

    from adafocus.data.prepare import check_folder, write_report

    with Progress(transient=True) as bar:
        task = bar.add_task("decoding", total=None)
        results = check_folder(
            options.root,
            workers=options.workers,
            timeout=options.timeout,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    folder = options.output or options.root
    write_report(results, folder)
    bad = [result for result in results if not result.ok]
    for result in bad:
        sys.stdout.write(f"bad: {result.path}: {result.reason}\n")
    sys.stdout.write(f"{len(results)} files, {len(bad)} bad; {folder / 'bad.txt'}\n")
    return 1 if bad else 0


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
        arguments = naming.quote_numbers(naming.inherit(argv))
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
