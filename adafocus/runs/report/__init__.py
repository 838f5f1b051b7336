"""`adafocus report` and the report.html of a run: a single file without scripts that loads nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.core.files import first_line, write_bytes

log = logging.getLogger("adafocus")
FILE = "report.html"


def write_report(folder: Path) -> Path | None:
    """Writes report.html of a run and returns its path; an error is only a warning, and the result None."""
    try:
        return _write([folder], folder / FILE)
    except Exception as error:
        log.warning(
            "report.html was not written (%s: %s); try `adafocus report`", type(error).__name__, first_line(error)
        )
        return None


def _write(folders: Sequence[Path], path: Path) -> Path:
    from jinja2 import UndefinedError

    from adafocus.runs.report.contents import read_contents
    from adafocus.runs.report.page import comparison_page, run_page

    runs = [read_contents(folder) for folder in folders]
    try:
        page = run_page(runs[0]) if len(runs) == 1 else comparison_page(runs)
    except (KeyError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        names = ", ".join(map(str, folders))
        raise UserError(f"a file in {names} has been changed and cannot be read ({first_line(error)})") from error
    data = page.encode("utf-8", "backslashreplace")  # names of files need not be valid UTF-8
    write_bytes(path, lambda file: file.write(data))
    return path


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus report RUN... [--output FILE]`; returns the exit status."""
    parser = ArgumentParser(
        prog="adafocus report",
        description="Writes the page of a run again, or one page that compares several runs.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; a run that is not finished shows its curves")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: report.html in the run folder; of several runs, here"
    )
    options = parser.parse_args(argv)
    folders = list(dict.fromkeys(options.runs))
    path = options.output or (folders[0] / FILE if len(folders) == 1 else Path(FILE))
    if not path.absolute().parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.absolute().parent}")
    sys.stdout.write(f"{_write(folders, path)}\n")
    return 0
