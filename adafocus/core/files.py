"""Writes files atomically, and reads and writes JSON files, with errors in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError


class _Recording:
    """A file object that stores the exception of a failed write instead of raising it.

    torch.save writes from C++, where a second error while an exception is handled aborts the whole process.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            if self.error is None:
                self.file.write(data)
        except BaseException as error:  # including an exception raised by a signal handler
            self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self.error is None:
            self.file.flush()


def write_bytes(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a file atomically: `write(file)` fills a temporary file next to it, which is then renamed to `path`.

    Raises:
        UserError: the disk is full or read-only, or the folder cannot be written. An existing file is left unchanged.
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
        with suppress(OSError):  # in a read-only folder the temporary file cannot be removed either
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: OSError) -> UserError:
    """Returns the error for a file that cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); files saved earlier are complete: free disk space or "
        f"choose another folder, and start again"
    )


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Python represents non-UTF-8 bytes of file names as lone surrogates; JSON stores those as escapes such as \udcff.
    data = text.encode("utf-8", "backslashreplace")
    write_bytes(path, lambda file: file.write(data + b"\n"))


def read_json(path: Path, kind: type | None = None) -> Any:
    """Reads a JSON file; None if the file does not exist.

    Args:
        path: the file.
        kind: `dict` or `list`, the required type of the content; None accepts any.

    Raises:
        UserError: the file is damaged or holds another type.
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


_JSON: dict[type, str] = {dict: "object", list: "array"}


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or the name of its type if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "".join(char for char in lines[0] if char.isprintable()) if lines else type(error).__name__


def is_address(target: str) -> bool:
    """Returns whether a target is an address such as `s3://bucket/net` or `hf://owner/name` instead of a path."""
    return "://" in target
