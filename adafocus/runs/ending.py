"""Handles errors that end a process of a run: one line on the terminal, status.json and the exit status."""

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

#: Error numbers (errno) that mean that a disk or folder cannot be written.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM)


def end(folder: Path, rank: int, error: BaseException, signals: Signals, reason: str | None = None) -> int | None:
    """Reports why this process ends, unless another process of the run has reported it, and writes status.json.

    Args:
        folder: the run folder.
        rank: rank of this process. Ranks above 0 wait a moment for rank 0, since most errors occur in all processes.
        error: the exception that ended the process.
        signals: the signals that arrived; from here on they are ignored.
        reason: a line that explains the exception, if the caller knows one.

    Returns:
        the exit status; None for a defect of this package, whose exception the caller should raise again.
    """
    signals.ignore()
    if isinstance(error, (Told, InUse)):  # another process reports the error, or has its own run in this folder
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
        )  # writes the traceback to run.log; Python prints it on the terminal
        end_status(folder, "failed", f"{prefix}{type(error).__name__}: {first_line(error)}")
        return None
    if not told:
        end_status(folder, "failed", prefix + reason)
        sys.stderr.write(f"error: {reason}\n")
    return LOST if lost else 2


def explain(error: BaseException) -> str | None:
    """Returns a message for an exception with a known cause outside the package (memory, disk); None for others."""
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
