"""The console command `adafocus`, and `adafocus run`, which starts jobs from Hydra overrides."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from adafocus.config import naming
from adafocus.config.compose import (
    check_typed,
    conf_folder,
    explain,
    first_unparsable,
    load_plugins,
    quote_paths,
    refuse_empty,
    register,
    typed_value,
)
from adafocus.core.errors import UserError
from adafocus.processes.signals import exit_process

USAGE = """usage: adafocus COMMAND ...

  run       trains, evaluates or counts costs: `adafocus run dataset=glyphs` (the same as `python run.py ...`)
  arena     trains and compares every way of choosing at equal cost: `adafocus arena FOLDER`
  benchmark measures speed and memory of a network on this device: `adafocus benchmark RUN_OR_FILE`
  compare   makes a table, CSV and plot of run folders: `adafocus compare outputs/*`
  convert   converts a checkpoint to .safetensors: `adafocus convert FILE OUT.safetensors`
  demo      a page on this machine to try networks on a video or the camera: `adafocus demo RUN...`
  export    exports networks by torch.export and ONNX: `adafocus export RUN [--onnx]`
  predict   predicts labels of videos or of a stream: `adafocus predict RUN_OR_FILE VIDEO [--online]`
  prepare   writes lists and frames, or checks videos: `adafocus prepare sthv2 ...`, `adafocus prepare check FOLDER`
  push      shares the network of a run with a model card: `adafocus push RUN FOLDER_OR_ADDRESS`
  report    writes report.html of a run again, or one page that compares several: `adafocus report RUN...`
  zoo       lists published models with scores, costs and commands: `adafocus zoo [NAME]`

`adafocus COMMAND --help` lists the options.
"""
INTERRUPTED, TERMINATED = 130, 143  # exit status after Ctrl-C and after SIGTERM
BROKEN_PIPE = 141  # exit status after the reader of the output has closed it, as in `adafocus zoo | head`
#: Packages of launchers and sweepers, whose exceptions mean that jobs were killed or that too many failed.
PLUGINS = ("hydra_plugins", "submitit", "joblib", "optuna")
#: Command -> module, for all commands but `run`; a module is imported only when its command is used.
TOOLS = {
    "arena": "adafocus.commands.arena",
    "benchmark": "adafocus.commands.benchmark",
    "compare": "adafocus.runs.compare",
    "convert": "adafocus.commands.convert",
    "demo": "adafocus.commands.demo",
    "export": "adafocus.commands.export",
    "predict": "adafocus.commands.predict",
    "prepare": "adafocus.commands.prepare",
    "push": "adafocus.commands.push",
    "report": "adafocus.runs.report",
    "zoo": "adafocus.commands.zoo",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `adafocus COMMAND ...`; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "run":
        return run(rest)
    if command in TOOLS:
        try:
            return import_module(TOOLS[command]).main(rest)
        except UserError as error:
            return _say(error)
        except BrokenPipeError:
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
    if command in ("", "-h", "--help", "help"):
        sys.stderr.write(USAGE)
        return 0 if command else 2
    near = get_close_matches(command, ["run", *TOOLS], 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return _say(UserError(f"adafocus {command}: no such command{meant}; `adafocus --help` lists them"))


def _say(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


def run(argv: list[str]) -> int:
    """Runs `adafocus run OVERRIDES`: a job, or with -m a sweep of jobs; returns the exit status."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from adafocus.runs.sweep import Jobs, let_jobs_import_us, raised_in

    # With this variable Hydra raises exceptions instead of printing them; they are then reported in one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments, sweep = argv, False
    try:
        refuse_unknown_flags(argv)
        refuse_empty(argv)
        typed = quote_paths(argv)
        load_plugins(typed)
        sweep = any(argument in ("-m", "--multirun", "hydra.mode=MULTIRUN") for argument in typed)
        count = check_typed(typed, sweep=sweep)
        stored = stored_overrides(typed)
        arguments = naming.quote_numbers([*stored, *typed])
        register(arguments, stored=stored)
        sys.argv = ["adafocus run", *arguments]
        if sweep:
            let_jobs_import_us()
        jobs = Jobs(arguments, stored, {naming.key_of(argument) for argument in argv}, count)
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(jobs.job)()
    except UserError as error:
        return _say(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(UserError(explain(error, first_unparsable(arguments))))
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:  # Hydra creates the run folder before it calls the job
        if error.filename is None:
            raise
        return _say(UserError(f"{error.filename}: {error.strerror}; choose another folder for the run"))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        package, line = raised_in(error), UserError(" ".join(str(error).split())[:500])
        if package == "hydra":  # about options of its own, such as --resolve, which it checks in no order of ours
            return _say(line)
        if not (sweep and package in PLUGINS):
            raise
        _say(line)
        return jobs.finish() or 1
    return jobs.finish()


def refuse_unknown_flags(arguments: list[str]) -> None:
    """Checks that Hydra knows all flags, because it would print its whole usage for an unknown one.

    Raises:
        UserError: there is such a flag.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"adafocus run: {message}; settings are KEY=VALUE, and `adafocus run --help` lists them")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # Hydra makes the parser, so it cannot be our subclass
    parser.parse_args(arguments)


def stored_overrides(arguments: list[str]) -> list[str]:
    """Returns the overrides that the checkpoint of `mode=evaluate` stores; the command line takes precedence."""
    mode, checkpoint = (typed_value(arguments, key) for key in ("mode", "checkpoint"))
    if mode not in ("evaluate", "early_exit") or checkpoint is None:
        return []
    if not isinstance(checkpoint, str):
        raise UserError(
            "checkpoint=... must be a single run folder or file, since each defines its own network; "
            "evaluate one at a time"
        )
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        from adafocus.config.stored import from_folder

        words = from_folder(path, [naming.key_of(argument) for argument in arguments])
    elif path.is_file():
        from adafocus.predict import stored_overrides as of_file

        words = of_file(path, arguments)
    else:
        raise UserError(f"checkpoint={checkpoint}: there is no such run folder or file")
    if words:
        sys.stderr.write(f"{path} says: {' '.join(words)}\n")
    return words


def main_and_exit() -> None:
    """Entry point of the console script: runs `main` and exits with its status."""
    exit_process(main())


if __name__ == "__main__":
    main_and_exit()
