"""The one exception for everything a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and what to do.

    The entry points print the message alone and exit with status 2; every other exception is a defect of ours and
    keeps its traceback.
    """


@contextmanager
def as_user_error() -> Iterator[None]:
    """The rooms below know no configuration: what they refuse as a value is here what the user chose."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
