"""Logging of a run: run.log, metrics.jsonl, external loggers, status.json and the progress bar."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adafocus.core.errors import printable
from adafocus.core.files import unwritable
from adafocus.core.registry import Logger
from adafocus.core.status import write_status
from adafocus.training.loggers import Loggers

log = logging.getLogger("adafocus")


class RunLogger:
    """Writes the metrics of a run; on all ranks but the first its methods do nothing.

    `offset` is the length of metrics.jsonl in bytes. Every checkpoint stores it, and `rewind` truncates the file to it,
    so that a resumed run writes the same lines as an uninterrupted one.

    Args:
        folder: the run folder, or the folder of one of its stages.
        active: whether this process writes.
        loggers: by name, factories of the loggers that get the same metrics; see `training.loggers.Loggers`.
    """

    def __init__(
        self, folder: Path, *, active: bool = True, loggers: Mapping[str, Callable[..., Logger]] | None = None
    ) -> None:
        self.folder, self.active = folder, active
        self.loggers = Loggers(folder, loggers or {})
        self.path = folder / "metrics.jsonl"
        self._progress: Progress | None = None
        self._task: Any = None
        self._last_status = 0.0
        self._last_line = time.monotonic()

    @property
    def offset(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def rewind(self, offset: int, step: int) -> None:
        """Removes the lines written after a checkpoint; logs a warning if earlier lines are missing."""
        if not self.active:
            return
        kept = _whole_lines(self.path, offset) if self.path.exists() else 0
        if kept < offset:
            log.warning(
                "%s is damaged or was shortened: only %d of its %d bytes up to step %d are left; training goes on",
                self.path,
                kept,
                offset,
                step,
            )
        try:
            if self.path.exists():
                os.truncate(self.path, kept)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.loggers.start(step)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes one line of metrics.jsonl, and passes it to the loggers."""
        if not self.active:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.loggers.record(kind, step, values)

    def picture(self, name: str, step: int, image: Any) -> None:
        """Passes a PIL image to the loggers."""
        if self.active:
            self.loggers.picture(name, step, image)

    def start(self, step: int, steps: int) -> None:
        if self.active and sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task("training", total=steps, completed=step)

    def tick(self, step: int, steps: int, text: str) -> None:
        """Updates the progress bar (without a terminal, logs a line every 20 s) and status.json (at most every 2 s)."""
        if not self.active:
            return
        now = time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=text)
        elif now - self._last_line > 20:
            self._last_line = now
            log.info("step %d of %d, %s", step, steps, text)
        if now - self._last_status > 2:
            self._last_status = now
            write_status(self.folder, "running", step=step, steps=steps)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finish(self, summary: dict[str, Any]) -> None:
        """Tells the loggers that the run is complete; see `Logger`."""
        if self.active:
            self.loggers.finish(summary)

    def stop(self) -> None:
        """Ends the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        self.stop()
        self.loggers.close()


@contextmanager
def counting(what: str, *, active: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yields a function (done, all) that shows the progress of `what`: a bar on a terminal, else a line every 20 s."""
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 20:
            last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)

    if not active:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        yield line
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines(logging.Formatter):
    """Escapes control codes in log lines, which may quote file names, classes and paths from data."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


def _whole_lines(path: Path, offset: int) -> int:
    """Returns the length in bytes of the complete JSON lines within the first `offset` bytes of a file."""
    kept = 0
    with open(path, "rb") as file:
        for line in file:
            if kept + len(line) > offset or not line.endswith(b"\n") or not _is_json(line):
                break
            kept += len(line)
    return kept


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class _LogFile(logging.FileHandler):
    """Handler for run.log; if the file cannot be written, the line is still shown on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        pass


def start_logging(folder: Path | None, *, rank: int = 0) -> None:
    """Sends log lines to the terminal (rank 0 only) and to `run.log` in the folder, tracebacks to the file only.

    Raises:
        UserError: the file cannot be opened.
    """
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    log.disabled = False  # Hydra disables the loggers that exist when it starts a job
    log.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    log.propagate = False
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(_Lines("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    screen.addFilter(lambda record: not record.exc_info)  # Python prints the traceback itself
    log.addHandler(screen)
    if folder is not None and rank == 0:
        try:
            file = _LogFile(folder / "run.log", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise unwritable(folder / "run.log", error) from error
        file.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
