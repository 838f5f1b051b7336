"""The console command and the way from a command line to a job."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from adafocus import naming
from adafocus.composing import check_typed, conf_folder, explain, first_unparsable, quote_paths, register, typed_value
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

    from adafocus.jobs import Jobs, let_jobs_import_us, of_a_plugin

    # With this set Hydra raises instead of printing several lines and a hint, and we say it in one.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        typed = quote_paths(argv)
        sweep = any(argument in ("-m", "--multirun", "hydra.mode=MULTIRUN") for argument in typed)
        count = check_typed(typed, sweep=sweep)
        said = _said(typed)
        arguments = naming.quote_numbers([*said, *typed])
        register(arguments, stored=said)
        sys.argv = ["adafocus run", *arguments]
        if sweep:
            let_jobs_import_us()
        jobs = Jobs(start, arguments, said, count)
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(jobs.job)()
    except UserError as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(UserError(explain(error, first_unparsable(arguments))))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if not (sweep and of_a_plugin(error)):
            raise
        _say(UserError(" ".join(str(error).split())[:500]))
        return jobs.finish() or 1
    return jobs.finish()


def _said(arguments: list[str]) -> list[str]:
    """For `mode=evaluate checkpoint=RUN_OR_FILE`: what that says about its network, to stand before what was typed, which wins."""
    mode, checkpoint = (typed_value(arguments, key) for key in ("mode", "checkpoint"))
    if mode not in ("evaluate", "early_exit") or checkpoint is None:
        return []
    if not isinstance(checkpoint, str):
        raise UserError(
            "checkpoint= is one run folder or file here: each says what its network is, so evaluate one at a time"
        )
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        from adafocus import stored

        said = stored.from_folder(path, [naming.split_override(argument)[0] for argument in arguments])
    elif path.is_file():
        from adafocus.predict import stored_overrides

        said = stored_overrides(path, arguments)
    else:
        raise UserError(f"checkpoint={checkpoint}: no such run folder or file")
    if said:
        sys.stderr.write(f"{path} says: {' '.join(said)}\n")
    return said


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
