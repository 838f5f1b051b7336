"""`adafocus arena`: trains every way of choosing frames, patch locations or tokens at equal cost, and compares them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adafocus.config.compose import compose, quoted
from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_json
from adafocus.runs.arena import processes
from adafocus.runs.arena.entrants import ENTRANTS, Entrant
from adafocus.runs.arena.plan import Costs, Trial, parse_budget, plan
from adafocus.runs.arena.result import as_json, markdown, plot, rows_of
from adafocus.runs.compare.render import human

_NOTE = """The same command continues an arena that was interrupted; finished runs are not repeated, and a run that
fails is reported at the end. KEY=VALUE are overrides of `adafocus run` for all runs."""


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus arena FOLDER [KEY=VALUE ...]`; returns the exit status: 1 if a run has failed."""
    parser = ArgumentParser(
        prog="adafocus arena",
        description="Trains networks that choose frames, patch locations or tokens in different ways and compares them "
        "at equal cost.",
        epilog=_NOTE,
    )
    parser.add_argument("data", metavar="FOLDER", help="folder of labeled videos, or glyphs for synthetic ones")
    parser.add_argument("typed", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--budgets", metavar="LIST", help="multiply-adds per video, such as 20M,40M")
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds (default 3)")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at the same time (default 1)")
    parser.add_argument("--only", metavar="LIST", help="entrants to compare: parts of their names in the table")
    parser.add_argument(
        "--out", type=Path, default=Path("arena"), help="folder for the runs and tables (default arena)"
    )
    parser.add_argument("--plan", action="store_true", help="print the runs with their cost, without starting them")
    options = parser.parse_intermixed_args(argv)
    if options.seeds < 1 or options.jobs < 1:
        raise UserError("--seeds and --jobs must be at least 1")
    if wrong := [word for word in options.typed if "=" not in word]:
        raise UserError(f"{wrong[0]!r} is not an override; write KEY=VALUE")
    entrants = _chosen(options.only, synthetic=options.data == "glyphs")
    shared, classes = _data(options.data, options.typed)
    costs = Costs(shared, classes)
    budgets = [parse_budget(text) for text in options.budgets.split(",")] if options.budgets else _usual(costs)
    trials = plan(entrants, budgets, options.seeds, costs, options.out.absolute(), _say)
    if options.plan or not trials:
        for trial in trials:
            _say(f"{trial.folder.name}: {trial.setting}, {human(trial.cost)}")
        return 0 if trials else 1
    failed = processes.run([trial.first for trial in trials], jobs=options.jobs, say=_say)
    _write(trials, options.out)
    for step in failed:
        _say(f"failed: {step.folder}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _chosen(only: str | None, *, synthetic: bool) -> list[Entrant]:
    entrants = [entrant for entrant in ENTRANTS if entrant.synthetic in (None, synthetic)]
    if only is None:
        return entrants
    names = ", ".join(entrant.name for entrant in entrants)
    for part in only.split(","):
        if not any(part in entrant.name for entrant in entrants):
            raise UserError(f"--only {part!r} is part of no entrant's name; choose from {names}")
    return [entrant for entrant in entrants if any(part in entrant.name for part in only.split(","))]


def _data(data: str, typed: Sequence[str]) -> tuple[list[str], int]:
    """Returns the overrides for the data set, and its number of classes."""
    from adafocus import build

    root = f"dataset.root={quoted(str(Path(data).expanduser().absolute()))}"
    shared = [*(["dataset=glyphs"] if data == "glyphs" else ["dataset=folder", root]), *typed]
    return shared, len(build.data(compose(shared)).classes)


def _usual(costs: Costs) -> list[int]:
    """Returns the default budgets: the cost of a quarter and of half of the frames whole."""
    frames = compose(list(costs.shared)).segments.glance
    counts = dict.fromkeys(max(1, frames * part // 4) for part in (1, 2))
    found = [costs.of(("method=recognizer", f"segments.glance={count}")) for count in counts]
    return [cost for cost in found if cost is not None]


def _write(trials: Sequence[Trial], out: Path) -> None:
    """Writes arena.md, arena.json and arena.png, and prints the table."""
    rows = rows_of(trials)
    if not rows:
        return
    summary = next(s for trial in trials if (s := read_json(trial.folder / "summary.json", dict)))
    score = "score: top-1 accuracy in percent, with 95 % bootstrap intervals over videos and seeds"
    about = [summary["protocol"], score]
    text = markdown(rows, about)
    (out / "arena.md").write_text(text, encoding="utf-8")
    write_json(out / "arena.json", {"about": about, "rows": as_json(rows)})
    plot(rows, out / "arena.png")
    sys.stdout.write(text)
    _say(f"arena: {out / 'arena.md'}, arena.json, arena.png")
