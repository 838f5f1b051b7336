"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError


class _Recording:
    """A file that keeps the exception of a write instead of raising it.

    torch.save calls it from C++, which ends the whole process when the file still fails while an exception is on its way.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            if self.error is None:
                self.file.write(data)
        except BaseException as error:  # also that of a signal handler
            self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self.error is None:
            self.file.flush()


def write_bytes(path: Path, write: Callable[[Any], object]) -> None:
    """Calls `write(file)` on a temporary neighbor and moves it to `path`: a reader or a kill never meets a half-written file.

    Raises:
        UserError: the disk is full or read-only, or the folder cannot be written. The older file is as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            recording = _Recording(file)
            write(recording)
            if recording.error is not None:
                raise recording.error
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):  # the folder may be what cannot be written
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: OSError) -> UserError:
    """The one line about a file that cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); what was saved before is whole: make room or choose another "
        f"folder, and start again"
    )


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Bytes of a file name that are not UTF-8 are lone surrogates in Python; as \udcff they are what JSON has for them.
    data = text.encode("utf-8", "backslashreplace")
    write_bytes(path, lambda file: file.write(data + b"\n"))


def read_json(path: Path, kind: type | None = None) -> Any:
    """The content of a JSON file, which must be a `kind` where one is given; None where there is no file.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); restore it or delete it") from error
    if kind is not None and not isinstance(value, kind):
        raise UserError(f"{path} should hold a JSON {_JSON[kind]}; restore it or delete it")
    return value


_JSON = {dict: "object", list: "array"}


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, for a message that is one line; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "".join(char for char in lines[0] if char.isprintable()) if lines else type(error).__name__
