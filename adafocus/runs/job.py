"""One process of a job: reads the run folder, does what its configuration says, and says how it ended.

`python -m adafocus.runs.job FOLDER [PLUGIN...]`, with RANK, WORLD_SIZE and LOCAL_RANK in the environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adafocus import build, checkpoints, config
from adafocus.config.schema import Config
from adafocus.core import plugins
from adafocus.core.batch import Batch
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.files import read_json, write_json
from adafocus.core.stage import Stage
from adafocus.core.status import restart_status, write_status
from adafocus.core.variants import Variant
from adafocus.data.collect import Collected, write_division
from adafocus.data.dataset import ClipSource
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder, loader_trouble
from adafocus.data.paths import printable
from adafocus.data.remarks import class_table
from adafocus.evaluation.evaluate import Report, evaluate
from adafocus.evaluation.places import TRAINING_CLIPS, learned_mean
from adafocus.layers.precision import channels_last
from adafocus.methods.network import EarlyExitNetwork
from adafocus.processes.distributed import World, join
from adafocus.processes.signals import Signals
from adafocus.runs.early_exit import EarlyExit
from adafocus.runs.early_exit import write as write_exits
from adafocus.runs.ending import end
from adafocus.runs.folder import lock
from adafocus.runs.summary import finish, sheet_of
from adafocus.runs.table import show_cost
from adafocus.training import checkpoint
from adafocus.training.logger import Journal, counting, log, start_logging
from adafocus.training.loggers import factories
from adafocus.training.trainer import Progress, Trainer


def run(folder: Path, settings: Config | None = None, named: Sequence[str] = ()) -> int:
    """Does the job of a folder; returns the exit status. Every end is written to status.json.

    Args:
        settings: of the folder, if they are known already.
        named: plug-ins that the command names which starts this.
    """
    rank = int(os.environ.get("RANK", 0))
    with Signals() as signals:
        try:
            signals.accept()
            start_logging(folder, rank=rank)
            plugins.load(named)
            settings = settings or config.read(folder)
            with join(settings.device, settings.loader.timeout + 60, folder, lambda: lock(folder)) as world:
                if world.first:
                    restart_status(folder)
                _do(settings, folder, world, signals)
        except BaseException as error:
            code = end(folder, rank, error, signals, loader_trouble(error))
            if code is None:
                raise
            return code
    return 0


def _do(settings: Config, folder: Path, world: World, signals: Signals) -> None:
    if settings.devices != world.size:
        raise UserError(f"devices={settings.devices}, but {world.size} processes were started; make them agree")
    started = time.monotonic()
    if settings.precision == "auto":
        settings = replace(settings, precision=settings.schedule.precision if world.device.type == "cuda" else "fp32")
    file, content, trained = None, {}, None
    if settings.mode != "train":
        file = _checkpoint_file("checkpoint", settings.checkpoint, settings.schedule.select)
        content = checkpoints.load_file(file)
        trained = build.trained_on(settings, content, file)
    with counting("inspecting videos", active=world.first) as progress:
        data = build.data(settings, trained=trained, progress=progress)
    _say_data(data, folder, world)
    with torch.device("cpu"):
        network = build.seeded_model(settings, len(data.classes), weights=settings.mode == "train")
    if settings.mode == "train" and (line := build.stream_line(settings, network)):
        log.info("%s", line)
    cost = build.cost(settings, len(data.classes))
    names = config.stages(settings)
    places = {name: folder if name == names[-1] else folder / "stages" / name for name in names}
    begun = any((place / checkpoint.LAST).is_file() for place in places.values())
    if settings.mode == "train" and not begun:
        _start(settings, network)
    if settings.channels_last:
        network = channels_last(network)
    if settings.sync_batchnorm:
        network = world.synchronize_norms(network)
    network = network.to(world.device)
    last = config.for_stage(settings, names[-1])
    test = _Judge(last, world, data.test, data.views)
    gains: list[dict[str, Any]] = []
    progress = Progress()
    if settings.mode == "train":
        judge = test if data.validate is data.test else _Judge(last, world, data.validate, 1)
        for name, place in places.items():
            part = config.for_stage(settings, name)
            judge.stage = build.stage(part, network)
            progress = _train(
                part, settings, place, world, judge, data, read_json(folder / "overrides.json", list) or [], signals
            )
            gains.append(_gain(name, part, judge.stage, progress))
    else:
        _load_checkpoint(settings, network, data.classes, file, content)
    if settings.mode == "early_exit":
        early = EarlyExit(last, data, build.stage(last, network), cost, world)
        rows = early.rows()
        if world.first:
            write_exits(folder, rows, last, data.protocol, early.unreadable)
            write_status(folder, "finished")
        return
    stage = test.stage = build.stage(last, network)
    stored = None if settings.mode == "train" else content.get("stage") or {}
    _constant_place(last, folder, world, stage, data, stored)
    report = test(stage.answerable, settings.evaluate.examples)
    if world.first:
        finish(last, folder, world, stage, data, cost, progress, report, time.monotonic() - started, gains)


def _constant_place(
    settings: Config, folder: Path, world: World, stage: Stage, data: build.Data, stored: dict[str, Any] | None
) -> None:
    """Gives a stage the mean place that was learned on the training set.

    After training it is measured and becomes part of the checkpoint whose weights the summary is about; else it is the one of
    the checkpoint.

    Args:
        stored: the stage's state in the checkpoint; None after training.
    """
    if not stage.needs_constant:
        return
    if stored is not None:
        with as_user_error():
            stage.load_state_dict(stored)
        if stage.constant_place is None:
            log.info("no row of a constant patch: this checkpoint does not hold the mean of the learned places")
        return
    loader = settings.loader
    order = EvaluationOrder(
        len(data.train), settings.evaluate.batch_size, limit=TRAINING_CLIPS, rank=world.rank, world=world.size
    )
    clips = Loader(data.train, order, workers=loader.workers, timeout=loader.timeout, pin=world.device.type == "cuda")
    stage.constant_place = learned_mean(stage, clips, world)
    if stage.constant_place is None:
        log.info("no row of a constant patch: no training clip could be read")
    elif world.first:
        best = settings.schedule.select == "best"
        checkpoint.Keeper(folder).amend({"stage": stage.state_dict()}, best=best)


def _start(settings: Config, network: nn.Module) -> None:
    """Weights of `init`: all of a run or file, then single networks."""
    for key, part in (("from", None), ("glance", "glance"), ("focus", "focus")):
        if (value := settings.start(key)) is not None:
            path = _checkpoint_file(f"init.{key}", value, settings.schedule.select)
            log.info("%s from %s: %s", part or "start", path, checkpoints.load_start(path, network, part))


def _gain(name: str, settings: Config, stage: Stage, progress: Progress) -> dict[str, Any]:
    """What one stage of several brought."""
    score = progress.best if settings.schedule.select == "best" else progress.last
    log.info("stage %s: %s %s %.2f", name, stage.variants[0], settings.dataset.metric, score)
    return {"stage": name, "answer": stage.variants[0].label, "score": score, "seconds": progress.seconds}


def _loader(settings: Config, world: World, clips: ClipSource, order: TrainOrder | EvaluationOrder) -> Loader:
    workers, timeout = settings.loader.workers, settings.loader.timeout
    return Loader(clips, order, workers=workers, timeout=timeout, pin=world.device.type == "cuda")


class _Judge:
    """Evaluates `stage`, which others set, on a split; the loader's processes live from its first call on.

    Args:
        views: of a video; so many fewer videos make a batch.
    """

    stage: Stage

    def __init__(self, settings: Config, world: World, clips: ClipSource, views: int) -> None:
        self.world, self.size = world, len(clips)
        self.average, self.chunk = settings.protocol.average, settings.evaluate.batch_size
        order = EvaluationOrder(self.size, max(1, self.chunk // views), rank=world.rank, world=world.size)
        self.batches = _loader(settings, world, clips, order)

    def __call__(self, variants: tuple[Variant, ...], examples: int = 0) -> Report:
        self.world.share_buffers(self.stage.model)  # the scores are those of the weights that rank 0 saves
        return evaluate(
            self.stage,
            self.batches,
            self.size,
            self.world,
            variants=variants,
            examples=examples,
            average=self.average,
            chunk=self.chunk,
        )


def _train(
    settings: Config,
    whole: Config,
    folder: Path,
    world: World,
    judge: _Judge,
    data: build.Data,
    typed: list[str],
    signals: Signals,
) -> Progress:
    """Trains one stage in its folder and leaves the weights that the summary is about in the model.

    Args:
        settings: of this stage.
        whole: of the run, as checkpoints carry it.
        typed: the run's overrides, likewise.
        signals: what this process is asked to do.
    """
    stage = judge.stage
    folder.mkdir(parents=True, exist_ok=True)
    loop = build.settings(settings, len(data.train))
    log.info("%s", build.rate_line(settings))
    order = TrainOrder(
        len(data.train),
        settings.schedule.batch_size,
        parts=loop.parts,
        rank=world.rank,
        world=world.size,
        seed=settings.seed,
    )
    loader = _loader(settings, world, data.train, order)

    def batches(epoch: int, first_step: int) -> Iterator[Batch]:
        order.start_at(epoch, first_step)
        return iter(loader)

    journal = Journal(folder, active=world.first, loggers=factories(settings.output.loggers))
    keeper = checkpoint.Keeper(folder, active=world.first)
    if world.first:
        write_status(folder, "running", steps=loop.epochs * loop.steps_per_epoch)

    def scores() -> dict[str, float]:
        report = judge(stage.variants[:1], settings.evaluate.examples)
        if world.first and (
            sheet := sheet_of(settings, data, report)
        ):  # how the places change in the course of training
            journal.picture("patches", trainer.progress.step, sheet)
        curves = report.places.scalars() if report.places else {}
        return report.scores[stage.variants[0]] | curves

    trainer = Trainer(
        stage,
        batches,
        scores,
        loop,
        world=world,
        journal=journal,
        keeper=keeper,
        compiled=settings.compile,
        protocol=data.validation,
        extra={"config": config.to_dict(whole), "classes": data.classes, "overrides": typed},
        signals=signals,
    )
    try:
        progress = trainer.run()
    finally:
        journal.close()
    world.barrier()
    if settings.schedule.select == "best":
        stage.model.load_state_dict(keeper.load(best=True)["model"])
    return progress


def report_cost(settings: Config, folder: Path) -> int:
    """`mode=cost`: prints the multiply-adds of every part, without data or weights, and writes cost.json."""
    classes = settings.dataset.classes
    if classes is None:
        raise UserError("mode=cost needs the number of classes: set dataset.classes=N")
    network, cost = build.meta_model(settings, classes), build.cost(settings, classes)
    frames = build.tested_plan(settings).seen
    found = {**cost.as_dict(), "frames": frames, "parameters": sum(p.numel() for p in network.parameters())}
    if isinstance(network, EarlyExitNetwork):
        found["exits"] = network.exit_costs({"crop": 0, **cost.parts})
    write_json(folder / "cost.json", found)
    show_cost(found, frames)
    return 0


def _checkpoint_file(key: str, value: str, select: str) -> Path:
    """The file that a run folder or file name stands for."""
    path = Path(value).expanduser()
    if not path.is_dir():
        return path
    names = (checkpoint.BEST, checkpoint.LAST) if select == "best" else (checkpoint.LAST, checkpoint.BEST)
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise UserError(f"{key}={path} holds no {' or '.join(names)}")
    return files[0]


def _load_checkpoint(
    settings: Config, network: nn.Module, classes: list[str], path: Path, content: dict[str, object]
) -> None:
    """Weights of a file, ours or an official one."""
    report = checkpoints.load_checkpoint(path, network, content, without=build.not_needed(settings))
    if report.classes is not None and report.classes != classes:
        place = next(i for i, pair in enumerate(zip(report.classes, classes, strict=True)) if pair[0] != pair[1])
        raise UserError(
            f"checkpoint {path} was trained on other classes: class {place} is {report.classes[place]!r} there and "
            f"{classes[place]!r} in dataset={settings.dataset.name}; put the class file in the order of the checkpoint"
        )
    log.info("checkpoint %s: %s", path, report)


def _say_data(data: build.Data, folder: Path, world: World) -> None:
    """Logs what was found of the data, and writes data.json, and split.csv where a part was held out."""
    if not world.first:
        return
    for name, found in data.found.items():
        expected = "" if found["expected"] is None else f" of {found['expected']} expected"
        parts = [
            f"{found[key]} {key.replace('_', ' ')}" for key in ("missing", "unreadable", "too_short") if found.get(key)
        ]
        labels = " labels {}..{},".format(*found["labels"]) if found.get("labels") else ""
        log.info(
            "%s:%s %d videos%s%s", name, labels, found["found"], expected, f" ({', '.join(parts)})" if parts else ""
        )
    log.info("%d classes; %s", len(data.classes), data.protocol)
    if data.validation != data.protocol:
        log.info("while training: %s", data.validation)
    values = {
        "found": data.found,
        "missing": data.missing,
        "classes": data.classes,
        "unreadable": data.unreadable,
    }
    if data.collected is not None:
        values |= {"clips": _say_classes(data.collected, data.unreadable), "notes": data.collected.notes}
        if data.collected.division:
            write_division(folder / "split.csv", data.collected.division)
            log.info("the hold-out is written to %s", folder / "split.csv")
    write_json(folder / "data.json", values)


def _say_classes(collected: Collected, unreadable: dict[str, dict[str, str]]) -> dict[str, dict[str, int]]:
    """Logs clips of each class, what is to be said of the data, and files that are broken; returns the clips."""
    for line in class_table(collected.classes, collected.counts):
        log.info("  %s", line)
    for note in collected.notes:
        log.warning("data: %s", note)
    for split, files in unreadable.items():
        name = {"train": "training", "validate": "validation", "evaluate": "evaluation"}[split]
        use = "left out" if split == "train" else "counted as wrong"
        for path, reason in list(files.items())[:10]:
            log.warning("unreadable video in %s, %s: %s: %s", name, use, printable(path), reason)
        if len(files) > 10:
            log.warning("... and %d more unreadable videos in %s; data.json names them", len(files) - 10, name)
    return {
        name: {split: int(values[number]) for split, values in collected.counts.items()}
        for number, name in enumerate(collected.classes)
    }


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), named=sys.argv[2:]))
