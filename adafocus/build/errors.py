"""Refused values as what the user chose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adafocus.errors import UserError


@contextmanager
def as_user_error() -> Iterator[None]:
    """The rooms below know no configuration: what they refuse as a value is here what the user chose."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
