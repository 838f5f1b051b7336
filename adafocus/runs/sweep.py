"""The jobs of one command: a single job, or those of a sweep, which Hydra's launcher may run in other processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from adafocus.config.compose import load_plugins, register
from adafocus.config.schema import GROUPS
from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_json
from adafocus.core.status import write_status
from adafocus.runs.begin import begin
from adafocus.runs.launch import launch

INTERRUPTED, TERMINATED = 130, 143  # exit status after Ctrl-C and after SIGTERM


class KeepConfig(Callback):
    """Hydra callback that stores, before a job starts, what is needed at its end (registered in conf/config.yaml).

    For a sweep this is Hydra's configuration, which the starting process reads when the sweep ends; for a single run
    the folders that Hydra is about to create, so that a refused command can remove them.
    """

    made: ClassVar[list[Path]] = []  # folders that Hydra creates, the innermost first

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        HydraConfig.instance().set_config(config)

    def on_run_start(self, config: Any, **_: Any) -> None:
        folder = Path(config.hydra.run.dir).absolute()
        KeepConfig.made = [path for path in (folder, *folder.parents) if not path.exists()]


class Jobs:
    """The function that Hydra calls for each job, and the collection of their results.

    A launcher may pickle this object and call it in another process. Therefore each job of a sweep writes a record file
    below the sweep's folder, and `finish` reads the records.

    Args:
        arguments: all overrides, for the names of the folders.
        stored: overrides that a given run or checkpoint was made with, see `config.compose.register`.
        typed: the keys that are set on the command line.
        count: number of jobs, as far as the overrides tell.
    """

    def __init__(self, arguments: list[str], stored: list[str], typed: Collection[str], count: int) -> None:
        self.arguments, self.stored, self.typed, self.count = arguments, stored, typed, count
        self.command, self.began = uuid4().hex[:12], time.time()
        self.code = 0
        HydraConfig.instance().cfg = None  # remove the configuration of an earlier command in this process

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        load_plugins(self.arguments)  # this process has its own tables of registered classes
        register(self.arguments, stored=self.stored)

    def job(self, node: Any) -> float | None:
        """Runs one job and returns its score. In a sweep, a failure is recorded and the next job runs."""
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        choices = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
        overrides = list(hydra.overrides.task)
        with self._recorded(hydra, folder), self._reported(hydra, folder):
            check_folder(folder, node)
            with begin(node, folder, overrides, choices, self.typed) as settings:
                self.code = 0 if settings is None else launch(folder, settings)
        return _score(folder) if self.code == 0 or hydra.mode != RunMode.MULTIRUN else None

    @contextmanager
    def _reported(self, hydra: Any, folder: Path) -> Iterator[None]:
        """Reports the error of a job in one line, as a context, and removes the folders that Hydra made for it."""
        self.code = 2
        try:
            yield
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            if hydra.mode != RunMode.MULTIRUN:
                with suppress(OSError):  # a folder that is not empty stays
                    for made in KeepConfig.made:
                        made.rmdir()
            elif not (folder / "config.json").exists():
                write_status(folder, "failed", error=str(error))  # unless the folder holds another run

    @contextmanager
    def _recorded(self, hydra: Any, folder: Path) -> Iterator[None]:
        """Writes the record of a job of a sweep and updates the comparison, as a context around the job."""
        if hydra.mode != RunMode.MULTIRUN:
            yield
            return
        records = Path(hydra.sweep.dir).absolute() / ".jobs" / self.command
        records.mkdir(parents=True, exist_ok=True)
        sys.stderr.write(f"--- {self._where(records, hydra)}: {folder.name}\n")
        sys.stderr.flush()
        record = {"folder": str(folder), "code": None}
        path = records / f"{hydra.job.num}.json"
        write_json(path, record)
        yield
        write_json(path, {**record, "code": self.code})
        if hydra.launcher._target_.endswith(".BasicLauncher"):
            from adafocus.runs.compare import write_comparison

            write_comparison(Path(hydra.sweep.dir), picture=False)
        if self.code in (INTERRUPTED, TERMINATED):
            raise KeyboardInterrupt  # Ctrl-C ends the whole sweep, not only one job

    def _where(self, records: Path, hydra: Any) -> str:
        """Returns the progress of a sweep as text, such as `job 2 of 6, about 12 min left`."""
        count = self.count if hydra.sweeper._target_.endswith(".BasicSweeper") else hydra.sweeper.get("n_trials")
        done = sum(record.get("code") is not None for record in _records(records))
        text = f"job {hydra.job.num + 1}" + (f" of {count}" if count and hydra.job.num < count else "")
        if not done or not count or done >= count:
            return text
        minutes = (time.time() - self.began) / done * (count - done) / 60
        return text + (f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left")

    def finish(self) -> int:
        """Ends the command: after a sweep writes the comparison and prints the failed jobs; returns the exit status."""
        if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
            return self.code
        from adafocus.runs.compare import main as compare
        from adafocus.runs.compare import write_comparison

        sweep = Path(HydraConfig.get().sweep.dir)
        records = sweep.absolute() / ".jobs" / self.command
        found = list(_records(records))
        if all(
            record["code"] is not None for record in found
        ):  # otherwise a job may still be running in another process
            shutil.rmtree(records, ignore_errors=True)
            with suppress(OSError):  # the folder is not empty if it also holds records of another command
                records.parent.rmdir()
        if write_comparison(sweep):
            compare([str(sweep), "--mix-protocols"])
            sys.stdout.write(f"comparison: {sweep / 'compare.md'}\n")
        failed = [record["folder"] for record in found if record["code"] != 0]
        for folder in failed:
            sys.stderr.write(f"failed: {folder}\n")
        return 1 if failed or not found else 0


def check_folder(folder: Path, node: Any) -> None:
    """Checks that a folder does not hold a job of another mode, or the evaluation of another checkpoint or other data.

    Such results would be overwritten. For training, `folder.inspect` compares the whole configuration.

    Raises:
        UserError: the folder holds such a job.
    """
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        mode, said = held["mode"], (held["checkpoint"], held["dataset"]["root"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return  # there is no job in the folder, or its configuration cannot be read
    if node.mode == "cost" or (mode == node.mode == "train"):
        return
    now = (node.checkpoint, node.dataset.root)
    if mode != node.mode:
        raise UserError(f"{folder} holds a job of mode={mode}; choose another name=NAME or delete that folder")
    if [_absolute(path) for path in said] != [_absolute(path) for path in now]:
        raise UserError(
            f"{folder} holds mode={mode} of checkpoint={said[0]} on dataset.root={said[1]}; choose "
            f"another name=NAME or "
            f"delete that folder"
        )


def _absolute(path: object) -> str:
    return os.path.abspath(os.path.expanduser(str(path)))


def raised_in(error: Exception) -> str:
    """Returns the name of the package whose code raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] if trace is not None else ""


def let_jobs_import_us() -> None:
    """Adds this package to PYTHONPATH, so that a Hydra launcher's processes can import it from a checkout."""
    package = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if package not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, *paths]))


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem)):
        yield json.loads(path.read_text(encoding="utf-8"))


def _score(folder: Path) -> float | None:
    """Returns the score in the summary of a job, which a sweeper maximizes; None if there is none."""
    summary = read_json(folder / "summary.json")
    score = summary.get("score") if isinstance(summary, dict) else None
    return float(score) if isinstance(score, (int, float)) else None
