"""The argument parser of all commands."""

from __future__ import annotations

import argparse
from typing import NoReturn

from adafocus.core.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports a wrong argument in one line, as `UserError`, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`, which the command line reports with exit status 2."""
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` lists the arguments")
