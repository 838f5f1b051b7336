"""The runs of an arena: every entrant at every budget with every seed, and the setting that meets the budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adafocus.config.compose import compose, quoted
from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.runs.arena.entrants import Entrant
from adafocus.runs.compare.render import human

SLACK = 1.03  # a setting may cost 3 % more than the budget, because sizes and numbers of frames are whole steps


@dataclass(frozen=True)
class Trial:
    """One run of an arena.

    Attributes:
        entrant: the way of choosing.
        budget: multiply-adds per video that it may cost.
        seed: the training seed.
        setting: the override KEY=VALUE with which the cost is within the budget; empty if there is none.
        cost: its multiply-adds per video.
        folder: its run folder.
        overrides: all its overrides.
    """

    entrant: Entrant
    budget: int
    seed: int
    setting: str
    cost: int
    folder: Path
    overrides: tuple[str, ...]


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


class Costs:
    """Counts the cost of configurations, each of them once.

    Args:
        shared: overrides of all runs: those for the data set, and those of the command line.
        classes: number of classes.
    """

    def __init__(self, shared: Sequence[str], classes: int) -> None:
        self.shared, self.classes = tuple(shared), classes
        self._known: dict[tuple[str, ...], int | None] = {}
        self._allowed: dict[str, list[str]] = {}

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
        """Finds the most expensive setting of an entrant within a budget; returns it as override, and its cost.

        Values that are invalid for the data, such as a patch larger than the frame, are skipped. None if nothing fits.
        """
        settings = self._allowed.get(entrant.name)
        if settings is None:
            typed = [f"{entrant.key}={value}" for value in entrant.values]
            settings = [setting for setting in typed if self._config((*entrant.overrides, setting)) is not None]
            self._allowed[entrant.name] = settings

        def cost(place: int) -> int:
            return self.of((*entrant.overrides, settings[place])) or 0

        low, high = 0, len(settings)  # the first setting that is too expensive lies in low..high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if cost(middle) <= SLACK * budget else (low, middle)
        return (settings[low - 1], cost(low - 1)) if low else None


def plan(
    entrants: Sequence[Entrant], budgets: Sequence[int], seeds: int, costs: Costs, out: Path, say: Callable[[str], None]
) -> list[Trial]:
    """Returns the runs of an arena, budget by budget, without the entrants that cannot meet a budget.

    Args:
        entrants: the ways of choosing.
        budgets: multiply-adds per video.
        seeds: number of training seeds, from 0.
        costs: counts the cost of configurations.
        out: folder of the arena, which gets a run folder for each trial.
        say: called with one line for each entrant that cannot meet a budget.

    Raises:
        UserError: the configuration of an entrant is invalid with every setting.
    """
    trials = []
    for entrant in entrants:
        compose([*costs.shared, *entrant.overrides])  # raises with the reason
    for budget in budgets:
        for entrant in entrants:
            found = costs.fit(entrant, budget)
            if found is None:
                say(f"{entrant.name}: no value of {entrant.key} costs {human(budget)} or less")
                continue
            setting, cost = found
            for seed in range(seeds):
                name = re.sub(r"[^a-z0-9]+", "-", entrant.name.lower()).strip("-")
                folder = out / f"{name}-{human(budget).replace(' ', '')}-seed{seed}"
                overrides = (*costs.shared, *entrant.overrides, setting, f"seed={seed}")
                trials.append(Trial(entrant, budget, seed, setting, cost, folder, overrides))
    return trials


def command(trial: Trial) -> list[str]:
    """Returns the arguments of `adafocus` that start or continue a trial."""
    return ["run", *trial.overrides, f"hydra.run.dir={quoted(str(trial.folder))}"]
