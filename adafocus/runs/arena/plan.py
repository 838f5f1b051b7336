"""The runs of an arena: every entrant at every budget with every seed, and the setting that meets the budget."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafocus.config.compose import compose, quoted
from adafocus.config.schema import RUNTIME, Config
from adafocus.core.errors import UserError
from adafocus.runs.arena.entrants import Entrant
from adafocus.runs.arena.processes import Step
from adafocus.runs.compare.render import human

#: How far the cost of a run may be from its budget, as a share of it: sizes and numbers of frames are whole steps.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Trial:
    """One way of choosing with one budget and seed.

    Attributes:
        entrant: the way of choosing.
        budget: multiply-adds per video that it may cost.
        seed: the training seed.
        setting: the override KEY=VALUE with which the cost is near the budget.
        cost: its multiply-adds per video; with early exit, the mean that is expected.
        first: the run that trains it; with early exit, `first.then` evaluates it.
    """

    entrant: Entrant
    budget: int
    seed: int
    setting: str
    cost: int
    first: Step

    @property
    def folder(self) -> Path:
        """The run folder with its score."""
        return self.first.last.folder


def parse_budget(text: str) -> int:
    """Parses a number of multiply-adds such as 20M, 1.5G or 800000.

    Raises:
        UserError: the text is not a positive number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    value = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]] if match else 0.0
    if value < 1:
        raise UserError(f"--budgets: {text!r} is not a number of multiply-adds; write, for example, 20M,1.5G")
    return int(value)


def near(cost: float, budget: int) -> bool:
    """Whether a cost is equal to the budget within `TOLERANCE`."""
    return abs(cost / budget - 1) <= TOLERANCE


class Costs:
    """Counts the cost of configurations, each of them once.

    Args:
        shared: overrides of all runs: those for the data set, and those of the command line.
        classes: number of classes.
    """

    def __init__(self, shared: Sequence[str], classes: int) -> None:
        self.shared, self.classes = tuple(shared), classes
        self._known: dict[tuple[str, ...], int | None] = {}
        self._allowed: dict[Entrant, list[str]] = {}

    def of(self, overrides: Sequence[str]) -> int | None:
        """Returns the multiply-adds per video with these overrides; None if they are not a valid configuration."""
        key = tuple(overrides)
        if key not in self._known:
            from adafocus import build

            config = self._config(key)
            self._known[key] = None if config is None else build.cost(config, self.classes).total
        return self._known[key]

    def _config(self, overrides: Sequence[str]) -> Config | None:
        try:
            return compose([*self.shared, *overrides])
        except UserError:
            return None

    def fit(self, entrant: Entrant, budget: int) -> tuple[str, int] | None:
        """Finds the setting of an entrant whose cost is nearest to a budget; returns it as override, and its cost.


        Values that are invalid for the data, such as a patch larger than the frame, are skipped. None if nothing fits.
        """
        settings = self._settings(entrant)

        def cost(place: int) -> int:
            return self.of((*entrant.overrides, settings[place])) or 0

        low, high = 0, len(settings)  # the first setting that is too expensive lies in low..high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if cost(middle) <= budget else (low, middle)
        beside = [place for place in (low - 1, low) if 0 <= place < len(settings)]
        if not beside:
            return None
        best = min(beside, key=lambda place: abs(cost(place) - budget))
        return settings[best], cost(best)

    def _settings(self, entrant: Entrant) -> list[str]:
        """The settings of an entrant that are allowed: all between the smallest and the largest allowed value."""
        if entrant not in self._allowed:
            typed = [f"{entrant.key}={value}" for value in entrant.values]

            def allowed(place: int) -> bool:
                return self._config((*entrant.overrides, typed[place])) is not None

            places = sorted(range(len(typed)), key=lambda place: (place % 4 > 0, place))
            some = next((place for place in places if allowed(place)), None)
            if some is None:
                self._allowed[entrant] = []
            else:
                start = bisect_left(range(some), True, key=allowed)
                end = bisect_left(range(len(typed)), True, some + 1, key=lambda place: not allowed(place))
                self._allowed[entrant] = typed[start:end]
        return self._allowed[entrant]

    def exit_budget(self, overrides: Sequence[str], budget: int) -> float:
        """The value of early_exit.budgets with which the mean cost is `budget`, if the thresholds keep their shares."""
        from adafocus import build
        from adafocus.evaluation.exits import wanted_shares

        config = compose([*self.shared, *overrides])
        network: Any = build.meta_model(config, self.classes)
        costs = network.exit_costs(build.cost(config, self.classes))
        low, high = -4.0, 4.0  # of the logarithm to base 10
        for _ in range(40):
            middle = (low + high) / 2
            shares = wanted_shares([10**middle], len(costs), network.first_power)[0].tolist()
            mean = sum(share * cost for share, cost in zip(shares, costs, strict=True))
            low, high = (middle, high) if mean < budget else (low, middle)
        return float(f"{10**low:.4g}")


def plan(
    entrants: Sequence[Entrant], budgets: Sequence[int], seeds: int, costs: Costs, out: Path, say: Callable[[str], None]
) -> list[Trial]:
    """Returns the runs of an arena, budget by budget, without the entrants that cannot meet a budget.

    Args:
        entrants: the ways of choosing; those that do not go with the data and the typed overrides are left out.
        budgets: multiply-adds per video.
        seeds: number of training seeds, from 0.
        costs: counts the cost of configurations.
        out: folder of the arena, which gets a run folder for each trial.
        say: called with one line for each entrant that is left out or cannot meet a budget.

    Raises:
        UserError: no entrant goes with the data and the typed overrides.
    """
    able, reason = [], None
    for entrant in entrants:
        try:
            compose([*costs.shared, *entrant.overrides])
            able.append(entrant)
        except UserError as error:
            reason = error
            say(f"{entrant.name}: left out: {error}")
    if not able and reason is not None:
        raise reason
    trials = []
    for budget in budgets:
        for entrant in able:
            found = costs.fit(entrant, budget * max(1, entrant.exits))
            if found is None or not near(found[1], budget * max(1, entrant.exits)):
                cheapest = "none is allowed" if found is None else f"the nearest, {found[0]}, costs {human(found[1])}"
                say(f"{entrant.name}: no {entrant.key} for {human(budget)}: {cheapest}")
                continue
            trials += _trials(entrant, budget, *found, seeds, costs, out)
    return trials


def _trials(entrant: Entrant, budget: int, setting: str, cost: int, seeds: int, costs: Costs, out: Path) -> list[Trial]:
    """The trials of an entrant at one budget."""
    own = (*entrant.overrides, setting)
    name = re.sub(r"[^a-z0-9]+", "-", entrant.name.lower()).strip("-")
    exit_budget = costs.exit_budget(own, budget) if entrant.exits else None
    trials = []
    for seed in range(seeds):
        folder = out / f"{name}-{human(budget).replace(' ', '')}-seed{seed}"
        then = None
        if exit_budget is not None:
            kept = [typed for typed in costs.shared if typed.split("=")[0].lstrip("+").split(".")[0] in RUNTIME]
            asked = (f"early_exit.budgets=[{exit_budget:g}]", "early_exit.criteria=[confidence]")
            place = f"checkpoint={quoted(str(folder))}"
            then = Step(folder.with_name(f"{folder.name}-exits"), ("mode=early_exit", place, *asked, *kept))
        first = Step(folder, (*costs.shared, *own, f"seed={seed}"), then)
        trials.append(Trial(entrant, budget, seed, setting, budget if entrant.exits else cost, first))
    return trials
