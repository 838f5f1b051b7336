"""`UserError`, the exception for mistakes that the user can correct, and escaping of text for messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

#: Unicode characters that change the text direction; in a file name they could make it display as another name.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object) -> str:
    """Returns the text with control codes and line breaks as escapes such as `\\x1b`, so that it is safe to print.

    Use it for names, paths and messages that were read from a file.
    """

    def shown(character: str) -> str:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING:
            return character.encode("unicode_escape").decode("ascii")
        return character

    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(shown, text))


class UserError(Exception):
    """Raised for wrong input, with a message of one line that says what is wrong, where, and what to do.

    The command line prints only the message and exits with status 2. Any other exception is a bug of this package and
    is shown with its traceback. Control codes in the message are escaped, because it may quote a file's content.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


@contextmanager
def as_user_error() -> Iterator[None]:
    """Converts a ValueError inside the context to a UserError, for classes whose arguments the user has configured."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
