"""Checks of paths and text that are read from lists: a path must stay inside the folder of the videos."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from adafocus.core.errors import UserError

_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # in bytes; Linux allows 4096 for a path with its parent folders
#: Characters that are escaped: control characters, line separators, direction marks, and bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

#: Paths that need no change: ASCII names without control characters that do not begin with a dot.
_PLAIN = re.compile(r"[!-\-0-~][ -.0-~]*(/[!-\-0-~][ -.0-~]*)*")
_PLAIN_LENGTH = 200


def below(text: str, where: str, folder: Path | None = None) -> str:
    """Returns the path of a list row relative to the folder of the videos, without `..`.

    Args:
        text: the path in the row.
        where: the list and the line number, for messages.
        folder: the folder of the videos; an absolute path inside it is allowed.

    Raises:
        UserError: the path leads out of the folder, or cannot be a file name.
    """
    if len(text) <= _PLAIN_LENGTH and _PLAIN.fullmatch(text):  # most rows; lists may have a million of them
        return text
    path = text
    if path.startswith("/") and folder is not None:
        for base in (os.path.abspath(folder), os.path.realpath(folder)):
            if path.startswith(base.rstrip("/") + "/"):
                path = path[len(base.rstrip("/")) + 1 :]
                break
    normal = posixpath.normpath(path)
    if path.startswith("/") or normal in (".", "..") or normal.startswith("../"):
        raise UserError(
            f"{where}: the path {printable(text)[:80]!r} leads out of the folder of the videos; make it relative to it"
        )
    if any(ord(letter) < 32 for letter in normal):
        raise UserError(f"{where}: the path {printable(text)[:80]!r} has control characters; rename the file")
    raw = encode(normal)
    if len(raw) > _LONGEST_PATH or max(map(len, raw.split(b"/"))) > _LONGEST_NAME:
        raise UserError(
            f"{where}: the path {printable(text)[:40]!r}... is too long for a file ({len(raw)} bytes; a name has at "
            f"most {_LONGEST_NAME}, a path {_LONGEST_PATH})"
        )
    return normal


def inside(path: Path, folder: Path) -> bool:
    """Returns whether `path` is inside `folder` after following all links."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # an endless loop of links
        return False


def encode(text: str) -> bytes:
    """Returns the bytes of a path; bytes that are not UTF-8 are surrogates in `text`, as Python represents them."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Escapes unprintable characters and bytes that are not UTF-8, so that a name can be printed and written."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def read_text(path: Path, *, names_of_files: bool = False) -> str:
    """Reads a text file in UTF-8 (with or without byte order mark) or UTF-16 (with one).

    Args:
        path: the file.
        names_of_files: whether to keep bytes that are not UTF-8, because file names may contain them.

    Raises:
        UserError: it cannot be read, or has another encoding; the message names the file and the line.
    """
    try:
        if not path.is_file():  # reading a FIFO could block
            raise UserError(f"{path} is not a file")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        if b"\0" in data:
            raise UserError(f"{path} is not UTF-8 text (it holds zero bytes); save it as UTF-8")
        return data.decode("utf-8-sig", "surrogateescape" if names_of_files else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def has_stray_bytes(text: str) -> bool:
    """Returns whether a text has surrogates, which stand for bytes that are not UTF-8."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)
