"""The one exception for everything a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and what to do.

    The entry points print the message alone and exit with status 2; every other exception is a defect of ours and
    keeps its traceback.
    """
