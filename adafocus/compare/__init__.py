"""Comparison of run folders: table, CSV, Markdown and a plot of score against cost. Imports no torch and reads only JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from adafocus.compare.render import plot, to_csv, to_markdown, to_text
from adafocus.compare.table import SORTS, Comparison, compare, find_runs
from adafocus.core.errors import UserError


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_comparison(folder: Path) -> Comparison:
    """(Re)writes compare.md, compare.csv and compare.png of all runs below a folder, as after each job of a sweep."""
    comparison = compare(find_runs([folder]), mix_protocols=True)
    _write(folder / "compare.md", to_markdown(comparison))
    _write(folder / "compare.csv", to_csv(comparison))
    plot(comparison, folder / "compare.png")
    return comparison


def main(argv: Sequence[str]) -> int:
    """`adafocus compare PATH... [options]`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="adafocus compare", description="Table of runs: score, cost, what differs.")
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, or folders that hold them at any depth")
    parser.add_argument("--csv", type=Path, help="write raw numbers")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument("--plot", type=Path, help="write a PNG of score against cost")
    parser.add_argument("--rows", action="store_true", help="a row for every answer of a run (random patch, ...)")
    parser.add_argument("--mix-protocols", action="store_true", help="compare scores that were measured differently")
    parser.add_argument("--sort", default="cost", help=", ".join(SORTS))
    options = parser.parse_args(argv)
    comparison = compare(
        find_runs(options.paths), mix_protocols=options.mix_protocols, variants=options.rows, sort=options.sort
    )
    sys.stdout.write(to_text(comparison))
    if options.csv:
        _write(options.csv, to_csv(comparison))
    if options.markdown:
        _write(options.markdown, to_markdown(comparison))
    if options.plot and not plot(comparison, options.plot):
        raise UserError("nothing to plot: no run is finished")
    return 0
