"""`mode=early_exit`: computes exit thresholds on training videos, then evaluates with real early exit."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from adafocus import build, predict
from adafocus.config.schema import Config
from adafocus.core.batch import Batch, only
from adafocus.core.cost import Cost
from adafocus.core.files import read_json, write_json
from adafocus.core.output import given
from adafocus.data.dataset import ClipSource
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.evaluation import exits, metrics, queues
from adafocus.evaluation.exit_rule import REPORT, best_budget
from adafocus.layers.precision import channels_last
from adafocus.methods.network import EarlyExitNetwork, passed_exits
from adafocus.methods.stage import AdaptiveStage
from adafocus.processes.distributed import World
from adafocus.runs.exit_contract import check_size, choose_budget, contract_line
from adafocus.runs.plots import exit_curves
from adafocus.runs.predictions import write_predictions
from adafocus.runs.table import conclude_exits, show_exits
from adafocus.training.logger import log

SLOWER = (
    1.15  # with early_exit.chunk=0, stepwise execution without exits may take this much longer than the full network
)
#: Below this saving of multiply-adds no saving of time is reported, because timing noise would dominate the ratio.
MEASURABLE = 0.9


@dataclass
class Row:
    """One row of the early-exit table: a criterion with a budget, or a baseline.

    Attributes:
        name: "full model", "whole frames" (the baseline recognizer) or the criterion.
        budget: the budget q; None for the baselines.
        cost: mean multiply-adds (MACs) per video.
        simulated: score in percent of the full network's predictions at the exits that the thresholds determine.
        score: score in percent with real early exit; None if the row was only simulated.
        seconds, networks: mean seconds per video, including the decoding of chosen frames, and in the networks alone.
        kept: share saved of the networks' time divided by the share saved of multiply-adds; None if less than a tenth
            of the multiply-adds is saved.
        shares: share of the videos that stopped at each exit.
        thresholds: threshold of each exit.
        differing: number of videos whose exit or predicted class differs from the simulation.
        deviation: largest difference of a logit to the simulation, relative to the largest logit, over the videos with
            the same exit in both.
    """

    name: str
    budget: float | None
    cost: float
    simulated: float | None = None
    score: float | None = None
    seconds: float | None = None
    networks: float | None = None
    kept: float | None = None
    shares: list[float] | None = None
    thresholds: list[float] | None = None
    differing: int | None = None
    deviation: float | None = None


@dataclass
class Found:
    """Logits (N, K), exits (N,) and times of a pass over the N videos of a split, in the order of its list."""

    values: Tensor
    exits: Tensor
    labels: Tensor
    valid: Tensor
    seconds: float
    networks: float


class EarlyExit:
    """Evaluates early exit of a trained network; `rows()` returns one row per criterion and budget, and the baselines.

    Args:
        settings: the configuration of the run, with `early_exit`.
        data: the data; evaluation clips decode chosen frames on demand.
        stage: the stage of the trained network.
        cost: the cost of the network.
        world: this process's rank and the communication with the others; each evaluates its share of the videos.
    """

    def __init__(self, settings: Config, data: build.Data, stage: AdaptiveStage, cost: Cost, world: World) -> None:
        self.settings, self.data, self.stage, self.world = settings, data, stage, world
        # Channels-last weights: for few images, a convolution spends much of its time on converting the weights'
        # layout.
        channels_last(stage.model)
        self.options = settings.early_exit
        self._loaders: dict[int, Loader] = {}
        self._whole: ClipSource | None = None
        self.best: tuple[Row, Found] | None = None  # see `best_budget`
        self.full: Found | None = None  # predictions of the full model
        self.contract: dict[str, Any] | None = None  # see `exit_contract.choose_budget`
        check_size(self.options, len(data.test))
        self.unreadable: dict[str, str] = {}  # evaluation videos that could not be read and count as wrong -> reason
        self.network = model = cast(EarlyExitNetwork, stage.model)
        self.chunk = self.options.chunk or self._affordable_chunk()
        self.numbers = passed_exits(model.num_exits, self.chunk, glance_exit=model.glance_exit)
        costs = model.exit_costs(cost)
        self.costs = torch.tensor([costs[number] for number in self.numbers], dtype=torch.float64)
        self.full_cost = stage.costs(cost)[stage.variants[0]]
        budgets = list(self.options.budgets) or list(model.budgets)
        self.budgets = budgets
        self.shares = exits.wanted_shares(budgets, len(self.numbers), model.first_power)

    def rows(self) -> list[Row]:
        """Returns the rows of all criteria and budgets: all are simulated, `early_exit.runs` of them really run."""
        everything = self._whole_data()
        sure = self._training_certainty()
        log.info("thresholds computed from %d training videos", len(next(iter(sure.values()))))

        def all_exits(batch: Batch) -> Tensor:
            return self.stage.exit_logits(batch)[:, self.numbers]

        answers = self._timed(everything, lambda batches: queues.without_exits(batches, all_exits))
        full = self._timed(everything, lambda batches: queues.run_in_full(self.stage, batches))
        score, self.full = self._score(full.values, full), full
        rows = [Row("full model", None, self.full_cost, score, score, full.seconds, full.networks, 1.0)]
        for criterion in self.options.criteria:
            limits = [exits.thresholds(sure[criterion], share) for share in self.shares]
            chosen = self._run_these() if criterion == self.options.criteria[0] else set()
            if chosen and self.options.lose is not None:
                chosen |= self._sign(limits, sure[criterion], answers)
            for number, (budget, limit) in enumerate(zip(self.budgets, limits, strict=True)):
                row, at = self._simulate(criterion, budget, limit, answers)
                if number in chosen:
                    self._run(row, limit, at, answers, rows[0])
                    log.info("%s q=%g: %.1f %%, %s", criterion, budget, row.score, f"{row.cost / 1e6:.2f} M")
                rows.append(row)
        if self.options.baseline:
            rows.insert(1, self._baseline())
        self.unreadable = {path: why for part in self.world.gather(self.unreadable) for path, why in part.items()}
        return rows

    def write_predictions(self, folder: Path) -> None:
        """Writes predictions.csv for the budget that the summary's conclusion names, and for the full model."""
        if self.best is None or self.full is None:
            return
        row, found = self.best
        paths = [self.data.test.path(index) for index in range(len(self.data.test))]
        bad = {i: self.unreadable.get(paths[i], "unreadable") for i in (~found.valid).nonzero()[:, 0].tolist()}
        logits = {f"{row.name} {row.budget:g}": found.values, "full model": self.full.values}
        write_predictions(folder, paths, self.data.classes, found.labels, logits, bad, exits=found.exits)

    def _affordable_chunk(self) -> int:
        """Returns the smallest number of steps between exits with which all steps are at most `SLOWER` times slower."""

        def seconds(work: Callable[[list[Batch]], queues.ExitResult], batch: Batch) -> float:
            work([batch])
            return min(work([batch]).networks for _ in range(3))

        first = [
            next(iter(self._evaluation(clips))).to(self.world.device) for clips in (self._whole_data(), self.data.test)
        ]
        whole = seconds(lambda batches: queues.run_in_full(self.stage, batches), first[0])
        model, chunk = self.network, 1
        while chunk < model.num_exits:
            numbers = passed_exits(model.num_exits, chunk, glance_exit=model.glance_exit)
            limits, size = torch.full((len(numbers),), exits.NEVER), len(first[1])
            walk = partial(
                queues.exit_early,
                self.stage,
                limits=limits,
                numbers=numbers,
                criterion="confidence",
                chunk=chunk,
                size=size,
            )
            walked = seconds(walk, first[1])
            log.info("chunk %d: all steps take %.0f %% of the full network's time", chunk, 100 * walked / whole)
            if walked <= SLOWER * whole:
                break
            chunk *= 2
        return self.world.gather(chunk)[0]  # all processes use the value of rank 0

    def _whole_data(self) -> ClipSource:
        """Returns the evaluation clips as the full network reads them, without early exit."""
        if self._whole is None:
            # A network that chooses frames decodes them on demand without early exit, too.
            same, whole = self.network.chooses_frames, replace(self.settings, mode="evaluate")
            self._whole = self.data.test if same else build.data(whole, collected=self.data.collected).test
        return self._whole

    def _sweep(self) -> EvaluationOrder:
        size, batch = len(given(self.data.train)), self.settings.evaluate.batch_size
        return EvaluationOrder(
            size, batch, limit=self.options.train_videos, epoch=0, rank=self.world.rank, world=self.world.size
        )

    def _training_certainty(self) -> dict[str, Tensor]:
        """Computes the exit criteria (N, E) of augmented training clips, as the repositories' test_early_exit.py."""
        nothing = torch.empty(0, len(self.numbers))  # a process may have no video if there are very few
        found: dict[str, list[Tensor]] = {criterion: [nothing] for criterion in self.options.criteria}
        for batch in self._loader(given(self.data.train), self._sweep()):
            logits = self.stage.exit_logits(batch.to(self.world.device))[:, self.numbers].float()
            for criterion, parts in found.items():
                parts.append(exits.certainty(logits, criterion).cpu())
        shares = self.world.gather({name: torch.cat(parts) for name, parts in found.items()})
        return {name: torch.cat([share[name] for share in shares]) for name in found}

    def _evaluation(self, clips: ClipSource) -> Loader:
        """Makes the loader of evaluation clips; its processes stay alive, so that no timing includes their start."""
        if id(clips) not in self._loaders:
            order = EvaluationOrder(
                len(clips), self.settings.evaluate.batch_size, rank=self.world.rank, world=self.world.size
            )
            self._loaders[id(clips)] = self._loader(clips, order)
            next(iter(self._loaders[id(clips)]), None)
        return self._loaders[id(clips)]

    def _loader(self, clips: ClipSource, order: EvaluationOrder) -> Loader:
        loader = self.settings.loader
        pin = self.world.device.type == "cuda"
        return Loader(clips, order, workers=loader.workers or 0, timeout=loader.timeout, pin=pin)

    def _timed(self, clips: ClipSource, work: Callable[[Iterable[Batch]], queues.ExitResult]) -> Found:
        """Runs `work` on the readable clips of every evaluation batch and measures the seconds per video."""
        batches, seen, started = self._evaluation(clips), [], time.perf_counter()

        def readable() -> Iterator[Batch]:
            for batch in batches:
                seen.append(replace(batch, frames=batch.frames[:0], kept={}))
                if len(rows := batch.valid.nonzero()[:, 0]):
                    yield (batch if len(rows) == len(batch) else only(batch, rows)).to(self.world.device)

        left = work(readable())
        seconds = time.perf_counter() - started
        self.unreadable |= {bad.path: bad.reason for batch in seen for bad in batch.bad}
        index, valid = torch.cat([batch.index for batch in seen]), torch.cat([batch.valid for batch in seen])
        late = torch.tensor([bad.index for batch in seen for bad in batch.bad], dtype=torch.int64)
        share = {
            "index": index,
            "labels": torch.cat([batch.labels for batch in seen]),
            "valid": valid & ~torch.isin(index, late),  # chosen frames of these could not be read
            "read": index[valid],
            "values": left.logits,
            "exits": left.exits,
        }
        return _join(self.world.gather(share), len(clips), seconds, left.networks)

    def _score(self, logits: Tensor, found: Found) -> float:
        return metrics.scores(logits, found.labels, found.valid)[self.settings.dataset.metric]

    def _simulate(self, criterion: str, budget: float, limit: Tensor, answers: Found) -> tuple[Row, Tensor]:
        at = exits.exit_indices(exits.certainty(answers.values, criterion), limit)
        logits = answers.values[torch.arange(len(at)), at]
        shares = torch.bincount(at[answers.valid], minlength=len(self.numbers)) / max(1, int(answers.valid.sum()))
        cost = float((shares.double() * self.costs).sum())
        row = Row(criterion, budget, cost, self._score(logits, answers))
        row.shares, row.thresholds = shares.tolist(), limit.tolist()
        return row, at

    def _run_these(self) -> set[int]:
        """Returns the indices of the budgets that are run with real early exit."""
        count = min(self.options.runs, len(self.budgets))
        return set(torch.linspace(0, len(self.budgets) - 1, count).round().int().tolist())

    def _sign(self, limits: list[Tensor], training: Tensor, answers: Found) -> set[int]:
        """Chooses the budget that has the guarantee of `early_exit.lose`; returns its index, or an empty set."""
        seed, costs = self.settings.seed, self.costs
        found = choose_budget(
            self.options, limits, training, costs, answers.values, answers.labels, answers.valid, seed
        )
        index = found.pop("chosen")
        self.contract = {**found, "budget": None if index is None else self.budgets[index]}
        log.info("%s", contract_line(self.contract))
        return set() if index is None else {index}

    def _run(self, row: Row, limit: Tensor, at: Tensor, answers: Found, full: Row) -> None:
        """Runs one budget with real early exit and fills in its row."""
        found = self._timed(
            self.data.test,
            lambda batches: queues.exit_early(
                self.stage, batches, limit, self.numbers, row.name, self.chunk, self.settings.evaluate.batch_size
            ),
        )
        row.score, row.seconds, row.networks = self._score(found.values, found), found.seconds, found.networks
        if row.cost <= MEASURABLE * full.cost:
            row.kept = (1 - row.networks / given(full.networks)) / (1 - row.cost / full.cost)
        known = [full, row] if self.best is None else [full, self.best[0], row]
        if best_budget([asdict(one) for one in known]) == asdict(row):
            self.best = row, found
        expected = answers.values[torch.arange(len(at)), at]
        same = (found.exits == torch.tensor(self.numbers)[at]) & found.valid
        labels = found.values.argmax(1) == expected.argmax(1)
        row.differing = int((~(same & labels) & found.valid).sum())
        if same.any():
            row.deviation = float((found.values - expected)[same].abs().max() / expected[same].abs().max())

    def _baseline(self) -> Row:
        """Evaluates the baseline recognizer on whole frames and returns its row."""
        other = predict.load(given(self.options.baseline), device=self.world.device.type)
        data = build.data(other.settings, collected=self.data.collected)
        cost = build.cost(other.settings, len(other.classes))
        found = self._timed(data.validate, lambda batches: queues.run_in_full(other.stage, batches))
        score = self._score(found.values, found)
        return Row("whole frames", None, cost.total, score, score, found.seconds, found.networks)


def _join(shares: list[dict[str, Tensor]], size: int, seconds: float, networks: float) -> Found:
    """The results of all processes; the times are those of this one, whose share is a fraction of the videos."""
    first = next((share["values"] for share in shares if len(share["values"])), torch.zeros(1, 1))
    values = torch.zeros(size, *first.shape[1:])
    at = torch.full((size,), -1)
    labels = torch.empty(size, shares[0]["labels"].shape[1], dtype=torch.int64)
    valid = torch.zeros(size, dtype=torch.bool)
    for share in shares:
        labels[share["index"]], valid[share["index"]] = share["labels"], share["valid"]
        if len(share["read"]):
            values[share["read"]], at[share["read"]] = share["values"], share["exits"]
    videos = max(1, len(shares[0]["read"]))  # the first process reports
    return Found(values, at, labels, valid, seconds / videos, networks / videos)


def write(
    folder: Path, early: EarlyExit, rows: list[Row], protocol: str, program: dict[str, Any] | None = None
) -> None:
    """Writes early_exit.json, .csv and .png and summary.json, which `adafocus compare` reads; prints the table."""
    settings, unreadable = early.settings, early.unreadable
    for reason in unreadable.values():
        log.warning("unreadable video, counted as wrong: %s", reason)
    table = [asdict(row) for row in rows]
    metric = settings.dataset.metric
    report = {"protocol": protocol, "metric": metric, "contract": early.contract, "chunk": early.chunk}
    write_json(folder / REPORT, {**report, "rows": table})
    columns = [key for key in table[0] if key not in ("shares", "thresholds")]
    with open(folder / "early_exit.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "shares", "thresholds"])
        writer.writeheader()
        for row in table:
            lists = {key: " ".join(f"{value:.6g}" for value in row[key] or ()) for key in ("shares", "thresholds")}
            writer.writerow({**{key: "" if row[key] is None else row[key] for key in columns}, **lists})
    exit_curves(table, metric, folder / "early_exit.png")
    run = [row for row in rows if row.score is not None]
    answers = [
        {"name": row.name if row.budget is None else f"{row.name} {row.budget:g}", "score": row.score, "cost": row.cost}
        for row in run
    ]
    summary = {
        "format": 1,
        "state": "finished",
        "name": folder.name,
        "choices": read_json(folder / "choices.json", dict),
        "overrides": read_json(folder / "overrides.json", list),
        "seed": settings.seed,
        "protocol": protocol,
        "inference": program,
        "metric": metric,
        "score": run[0].score,
        "conclusion": conclude_exits([row for row in table if row["score"] is not None]),
        "rows": answers,
        "cost": {"total": run[0].cost},
        "unreadable": {"evaluate": unreadable},
        "seconds": {"train": 0.0, "per_video": run[0].seconds},
    }
    write_json(folder / "summary.json", summary)
    show_exits(folder, table, metric, protocol)
