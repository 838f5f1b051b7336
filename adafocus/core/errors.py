"""The one exception for everything a user can mend."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

#: Characters that turn the direction of the text after them: a name could show as another one.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object) -> str:
    """One line of text that a terminal only shows: control codes and line breaks are written as escapes (`\\x1b`).

    For names, paths and messages that come from files of others.
    """

    def shown(character: str) -> str:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING:
            return character.encode("unicode_escape").decode("ascii")
        return character

    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(shown, text))


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and what to do.

    The entry points print the message alone and exit with status 2; every other exception is a defect of ours and
    keeps its traceback.

    The message may name what strangers wrote (a file, a class, a key): it holds no control codes.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


@contextmanager
def as_user_error() -> Iterator[None]:
    """The rooms below know no configuration: what they refuse as a value is here what the user chose."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
