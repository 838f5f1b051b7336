"""Which runs an arena needs: every entrant at every budget with every seed."""

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
        setting: the override that brings it to the budget, as text; empty if no setting fits.
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
    """Multiply-adds from text such as 20M, 1.5G or 800000.

    Raises:
        UserError: it is no positive number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    value = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]] if match else 0.0
    if value < 1:
        raise UserError(f"--budgets: {text!r} is no number of multiply-adds; write 20M or 1.5G, with commas between")
    return int(value)


class Costs:
    """Counts the cost of configurations, each once.

    Args:
        shared: overrides of the data and those that the user typed.
        classes: number of classes.
    """

    def __init__(self, shared: Sequence[str], classes: int) -> None:
        self.shared, self.classes = tuple(shared), classes
        self._known: dict[tuple[str, ...], int | None] = {}
        self._allowed: dict[str, list[str]] = {}

    def of(self, overrides: Sequence[str]) -> int | None:
        """Multiply-adds per video; None if the overrides do not go together."""
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
        """The most expensive setting of an entrant within a budget, as override, and its cost; None if there is none.

        Values that are not allowed here, such as a patch larger than the frame, are left out.
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
    """The runs of an arena, budget by budget; an entrant that cannot be as cheap as a budget has none there.

    Args:
        entrants: the ways of choosing.
        budgets: multiply-adds per video.
        seeds: number of training seeds, from 0.
        costs: counts and finds settings.
        out: the arena's folder, which gets a run folder for each trial.
        say: reports entrants without a setting, one line each.

    Raises:
        UserError: an entrant's own configuration is wrong, whatever its setting.
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
    """The arguments of `adafocus` that run a trial or continue it."""
    return ["run", *trial.overrides, f"hydra.run.dir={quoted(str(trial.folder))}"]
