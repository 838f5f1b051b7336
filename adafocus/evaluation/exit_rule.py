"""The rule by which clips exit early: what `mode=early_exit` writes and prediction reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafocus.core.choices import CRITERIA
from adafocus.core.errors import UserError
from adafocus.core.files import read_json

REPORT = "early_exit.json"


@dataclass(frozen=True)
class ExitRule:
    """A criterion and the threshold of each exit in use.

    Attributes:
        criterion: see `adafocus.evaluation.exits.certainty`.
        budget: the budget q that the thresholds belong to.
        thresholds: one for each exit.
        chunk: steps between two exits, see `methods.network.passed_exits`.
    """

    criterion: str
    budget: float
    thresholds: tuple[float, ...]
    chunk: int

    def checked(self, exits: list[int]) -> list[int]:
        """Returns the exits in use of a network if there are as many as thresholds; else raises UserError."""
        if len(exits) != len(self.thresholds):
            raise UserError(
                f"the rule has {len(self.thresholds)} thresholds and this network {len(exits)} exits; name the "
                f"early-exit run of this network"
            )
        return exits

    def __str__(self) -> str:
        return f"early exit by {self.criterion}, budget {self.budget:g}"


def best_budget(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the row of the cheapest budget that reaches the full model's score, or else of the best-scoring budget.

    Args:
        rows: the rows that were run with real early exit, the full model first.
    """
    full, budgets = rows[0], [row for row in rows if row["budget"] is not None]
    equal = [row for row in budgets if row["score"] >= full["score"]]
    if equal:
        return min(equal, key=lambda row: row["cost"])
    return min(budgets, key=lambda row: (-row["score"], row["cost"]), default=None)


def read_rule(path: Path, budget: float | None = None) -> ExitRule:
    """Reads the rule of a run of mode=early_exit.

    Args:
        path: its folder, or its early_exit.json.
        budget: a budget of its first criterion; None: the one that keeps its contract (`early_exit.lose`), or else its
            best one, see `best_budget`.

    Raises:
        UserError: there is no such rule.
    """
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path} holds no {REPORT}; make one with mode=early_exit checkpoint=RUN")
    report = read_json(file, dict)
    try:
        rows, chunk = report["rows"], int(report["chunk"])
        known = [row for row in rows if row["budget"] is not None and row["name"] == _first_criterion(rows)]
        contract = report.get("contract") or {}
        if budget is None and contract.get("budget") is not None:
            budget = float(contract["budget"])
        if budget is None:
            row = best_budget([row for row in rows if row["score"] is not None])
        else:
            row = min(known, key=lambda row: abs(row["budget"] - budget), default=None)
            if row is None or abs(row["budget"] - budget) > 1e-9 * max(1, abs(budget)):
                listed = ", ".join(f"{row['budget']:g}" for row in known[:50])
                raise UserError(f"{file} has no budget {budget:g}; it has {listed}")
        if row is None:
            raise UserError(f"{file}: no budget was run; repeat mode=early_exit with early_exit.runs=1 or more")
        found = ExitRule(row["name"], float(row["budget"]), tuple(map(float, row["thresholds"])), chunk)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not what mode=early_exit of this version writes ({error!r})") from error
    if found.criterion not in CRITERIA or chunk < 1:
        raise UserError(f"{file} is not what mode=early_exit of this version writes")
    return found


def _first_criterion(rows: list[dict[str, Any]]) -> str:
    return next(row["name"] for row in rows if row["budget"] is not None)
