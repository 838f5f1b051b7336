"""Handling of errors that end a process of a run: one line on the terminal, status.json and the exit status."""

from __future__ import annotations

import errno
import signal
import sys
import time
from pathlib import Path

import torch

from adafocus.core.errors import UserError
from adafocus.core.files import first_line
from adafocus.core.status import end_status, interruption, read_status
from adafocus.processes.distributed import Told, lost_contact
from adafocus.processes.signals import Interrupted, Signals
from adafocus.runs.folder import InUse
from adafocus.runs.launch import LOST
from adafocus.training.logger import log

#: Error numbers of a disk or folder that cannot be written.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM)


def end(folder: Path, rank: int, error: BaseException, signals: Signals, reason: str | None = None) -> int | None:
    """Says why this process ends, unless another one of the run has done so, and writes the status.

    Args:
        folder: the run folder.
        rank: this process. The others give the first one time to speak, for most errors are everybody's.
        error: what has ended it.
        signals: which signal, if any; none ends it a second time.
        reason: one line about an exception that the caller knows.

    Returns:
        The exit status; None for a defect of ours, whose exception should go on.
    """
    signals.ignore()
    if isinstance(error, (Told, InUse)):  # another process speaks, or has its own run in this folder
        if isinstance(error, InUse):
            sys.stderr.write(f"error: {error}\n")
        return 2
    lost = lost_contact(error)
    told = _others_have_spoken(folder, 3.0 if lost else 0.5 if rank else 0.0)
    if isinstance(error, KeyboardInterrupt) or (signals.number and not isinstance(error, UserError)):
        number = signals.number or getattr(error, "number", signal.SIGINT)
        at = (error.step, error.steps) if isinstance(error, Interrupted) else (0, 0)
        if not told:
            end_status(folder, "interrupted", signal.Signals(number).name, step=at[0], steps=at[1])
            status = read_status(folder)
            sys.stderr.write(interruption(number, status["step"], status["steps"]) + "\n")
        return 128 + number
    if lost and told:
        return LOST
    reason = reason or explain(error)
    prefix = f"rank {rank}: " if rank else ""
    if reason is None:
        log.error(
            "%s", f"{prefix}the run ends with a defect", exc_info=error
        )  # in run.log; Python shows it on the terminal
        end_status(folder, "failed", f"{prefix}{type(error).__name__}: {first_line(error)}")
        return None
    if not told:
        end_status(folder, "failed", prefix + reason)
        sys.stderr.write(f"error: {reason}\n")
    return LOST if lost else 2


def explain(error: BaseException) -> str | None:
    """The message for an exception that has a known cause outside the package (memory, disk); None for others."""
    if isinstance(error, UserError):
        return str(error)
    text = first_line(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
        return (
            f"out of memory ({'. '.join(text.split('. ')[:2])}); raise schedule.accumulation_steps, "
            f"use precision=bf16, "
            f"or lower segments or patch; in an evaluation lower evaluate.batch_size"
        )
    if isinstance(error, OSError) and error.errno in DISK:
        return (
            f"{error.filename or 'a file of the run'}: {error.strerror}; free disk space there or choose another folder"
        )
    if lost_contact(error):
        return "another process of this run has ended without saying why; see its own messages"
    return None


def _others_have_spoken(folder: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        if read_status(folder)["state"] in ("failed", "interrupted"):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
