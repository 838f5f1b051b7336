"""`adafocus compare`: run folders as table, CSV, Markdown and plot of score against cost; it needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.runs.compare.render import plot, to_csv, to_markdown, to_text
from adafocus.runs.compare.table import SORTS, compare, find_runs, group


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file atomically: `write` creates a temporary file next to `path`, which is then renamed."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def write_comparison(folder: Path, *, picture: bool = True) -> bool:
    """Writes compare.md, compare.csv and compare.png for all runs below a folder.

    Args:
        folder: the folder, such as that of a sweep.
        picture: whether to write compare.png, which takes about a second.

    Returns:
        True if the folder holds any runs; else nothing is written.
    """
    runs = find_runs([folder])
    if not runs:
        return False
    comparison = compare(runs)
    _write(folder / "compare.md", lambda part: part.write_text(to_markdown([comparison]), encoding="utf-8"))
    _write(folder / "compare.csv", lambda part: part.write_text(to_csv(comparison), encoding="utf-8"))
    if picture and any(row.finished for row in comparison.rows):
        _write(folder / "compare.png", lambda part: plot([comparison], part))
    return True


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus compare PATH... [options]`; returns the exit status."""
    parser = ArgumentParser(
        prog="adafocus compare",
        description="Tables of runs with score, cost and differing choices; one table for each data set and protocol.",
    )
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, or folders that hold them at any depth")
    parser.add_argument("--csv", type=Path, help="write raw numbers of all runs in one table")
    parser.add_argument("--markdown", type=Path, help="write the tables")
    parser.add_argument("--plot", type=Path, help="write a PNG of score against cost")
    parser.add_argument(
        "--rows", action="store_true", help="a row for every evaluation variant of a run (random patch, ...)"
    )
    parser.add_argument(
        "--mix-protocols", action="store_true", help="one table for all runs, even if their scores are not comparable"
    )
    parser.add_argument("--sort", default="cost", help=", ".join(SORTS))
    options = parser.parse_args(argv)
    runs = find_runs(options.paths)
    if not runs:
        raise UserError(f"there are no run folders below {', '.join(map(str, options.paths))}")
    groups = [runs] if options.mix_protocols else group(runs)
    comparisons = [compare(members, variants=options.rows, sort=options.sort) for members in groups]
    sys.stdout.write(to_text(comparisons))
    if options.csv:
        together = compare(runs, variants=options.rows, sort=options.sort)
        _write(options.csv, lambda part: part.write_text(to_csv(together), encoding="utf-8"))
    if options.markdown:
        _write(options.markdown, lambda part: part.write_text(to_markdown(comparisons), encoding="utf-8"))
    if options.plot:
        if not any(row.finished for comparison in comparisons for row in comparison.rows):
            raise UserError("--plot needs a finished run, and none of these runs is finished; leave it out")
        _write(options.plot, lambda part: plot(comparisons, part))
    return 0
