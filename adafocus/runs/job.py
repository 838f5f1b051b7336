"""One process of a job: reads the configuration from a run folder, trains or evaluates, and writes the status.

`python -m adafocus.runs.job FOLDER [PLUGIN...]`, with RANK, WORLD_SIZE and LOCAL_RANK in the environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from adafocus import build, checkpoints
from adafocus import config as configs
from adafocus.config.schema import Config
from adafocus.core import plugins
from adafocus.core.batch import Batch
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.files import read_json, write_json
from adafocus.core.output import given
from adafocus.core.stage import Stage
from adafocus.core.status import restart_status, write_status
from adafocus.core.variants import Variant
from adafocus.data.dataset import ClipSource
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder, loader_trouble
from adafocus.evaluation.evaluate import Report, evaluate
from adafocus.evaluation.gallery import Gallery
from adafocus.evaluation.places import TRAINING_CLIPS, learned_mean
from adafocus.layers.precision import channels_last
from adafocus.methods import method_of
from adafocus.methods.network import EarlyExitNetwork
from adafocus.methods.stage import AdaptiveStage
from adafocus.processes.backends import set_backends
from adafocus.processes.distributed import World, default_workers, join
from adafocus.processes.memory import keep_freed_memory
from adafocus.processes.signals import Signals, exit_process
from adafocus.runs.data_log import log_data
from adafocus.runs.early_exit import EarlyExit
from adafocus.runs.early_exit import write as write_exits
from adafocus.runs.ending import end
from adafocus.runs.folder import lock
from adafocus.runs.program import use_program
from adafocus.runs.summary import finish, sheet_of
from adafocus.runs.table import show_cost
from adafocus.runs.teacher import teach
from adafocus.runs.weights import checkpoint_file, load_checkpoint, load_start
from adafocus.training import checkpoint
from adafocus.training.logger import RunLogger, counting, log, start_logging
from adafocus.training.loggers import factories
from adafocus.training.settings import Progress
from adafocus.training.trainer import Trainer


def run(folder: Path, config: Config | None = None, named: Sequence[str] = ()) -> int:
    """Runs the job of a run folder and returns the exit status; status.json gets the outcome in any case.

    Args:
        folder: the run folder.
        config: the configuration of the run, if it has been read already.
        named: names of plug-ins from the command line.
    """
    rank = int(os.environ.get("RANK", 0))
    with Signals() as signals:
        try:
            signals.accept()
            start_logging(folder, rank=rank)
            plugins.load(named)
            config = config or configs.read(folder)
            if config.keep_freed_memory:
                keep_freed_memory()
            with join(config.device, config.loader.timeout + 60, folder, lambda: lock(folder)) as world:
                if world.first:
                    restart_status(folder)
                job = prepare(config, folder, world, signals)
                with ExitStack() as run_loggers:
                    for trainer in job.trainers(run_loggers):
                        trainer.run()
                    job.finish()
        except BaseException as error:
            code = end(folder, rank, error, signals, loader_trouble(error))
            if code is None:
                raise
            return code
    return 0


def prepare(config: Config, folder: Path, world: World, signals: Signals) -> Job:
    """Loads the data and builds the network of a job on the device.

    Raises:
        UserError: data or weights are missing or do not fit.
    """
    if config.loader.workers is None:
        config = replace(config, loader=replace(config.loader, workers=default_workers(world.device)))
    if config.devices != world.size:
        raise UserError(
            f"devices={config.devices}, but {world.size} processes were started; set "
            f"devices={world.size}, or start {config.devices}"
        )
    started, training = time.monotonic(), config.mode == "train"
    factories(config.output.loggers)  # raises if a logger's package is missing, before any data is read
    file, content, trained = Path(), cast(Mapping[str, Any], {}), None
    if not training:
        file = checkpoint_file("checkpoint", given(config.checkpoint), config.schedule.select)
        content = checkpoints.load_file(file)
        trained = build.trained_on(config, content, file)
    with counting("inspecting videos", active=world.first) as progress:
        data = build.data(config, trained=trained, progress=progress)
    if world.first:
        log_data(data, folder)
    with torch.device("cpu"):
        network = build.seeded_model(config, len(data.classes), weights=training)
    if training and (line := build.stream_line(config, network)):
        log.info("%s", line)
    job = Job(config, folder, world, signals, data, network, content, started)
    if not training:
        load_checkpoint(config, network, data.classes, file, content)
    elif not job.begun:
        load_start(config, network)
    if config.channels_last or world.device.type == "cuda":  # frames arrive in this layout; others would be converted
        channels_last(network)
    set_backends(world.device, tf32=config.tf32 and not config.compile, benchmark=training)
    job.network = (world.synchronize_norms(network) if config.sync_batchnorm else network).to(world.device)
    return job


@dataclass
class Job:
    """A training, evaluation or early-exit job of one process.

    Attributes:
        config: the configuration of the run; `for_stage` gives that of a stage.
        content: content of the evaluated checkpoint; empty in training.
        started: time at which the job began (`time.monotonic`).
        stage_results: score and seconds of every trained stage, for the summary.
        progress, run_logger: progress and logger of the stage that was trained last.
    """

    config: Config
    folder: Path
    world: World
    signals: Signals
    data: build.Data
    network: nn.Module
    content: Mapping[str, Any]
    started: float
    stage_results: list[dict[str, Any]] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    run_logger: RunLogger | None = None

    @property
    def stage_folders(self) -> dict[str, Path]:
        """The folder of every stage's checkpoints, by stage; the last stage has the run folder itself."""
        names = configs.stages(self.config)
        return {name: self.folder if name == names[-1] else self.folder / "stages" / name for name in names}

    @property
    def begun(self) -> bool:
        """Whether a checkpoint of any stage exists."""
        return any((place / checkpoint.LAST).is_file() for place in self.stage_folders.values())

    @cached_property
    def last(self) -> Config:
        """The configuration of the last stage, which is evaluated."""
        return configs.for_stage(self.config, configs.stages(self.config)[-1])

    @cached_property
    def test(self) -> Evaluator:
        return Evaluator(self.last, self.world, self.data.test, self.data.views)

    def trainers(self, run_loggers: ExitStack) -> Iterator[Trainer]:
        """Yields the trainer of every stage; the caller must run it before it asks for the next one.

        Args:
            run_loggers: closes the logger of the last stage, which stays open for the results of the run.
        """
        if self.config.mode != "train":
            return
        same = self.data.validate is self.data.test
        validate = self.test if same else Evaluator(self.last, self.world, self.data.validate, 1)
        if self.config.teacher.checkpoint is not None:
            teach(self.config, self.data, self.folder, self.world, begun=self.begun)
        for name in self.stage_folders:
            trainer = self.trainer(name, validate)
            if self.run_logger is not None:
                self.run_logger.close()
            self.run_logger = run_loggers.enter_context(trainer.run_logger)
            yield trainer
            self.progress = trainer.progress
            self.run_logger.stop()
            self._end_stage(name, trainer)

    def finish(self) -> None:
        """Evaluates the last stage, in full or with early exit, and writes the results."""
        stage, last, data = build.stage(self.last, self.network), self.last, self.data
        cost = build.cost(self.config, len(data.classes))
        training = self.config.mode == "train"
        program = None if training else use_program(last, stage, self.test.batches, data, self.world.device)
        if self.config.mode == "early_exit":
            self._exit_early(EarlyExit(last, data, cast(AdaptiveStage, stage), cost, self.world), program)
            return
        self._find_constant_place(last, stage)
        report = self.test(stage, stage.answerable, last.evaluate.examples, Gallery())
        if not self.world.first:
            return
        seconds, results = time.monotonic() - self.started, self.stage_results
        summary = finish(
            last, self.folder, self.world, stage, data, cost, self.progress, report, seconds, results, program
        )
        if self.run_logger is not None:
            self.run_logger.finish(summary)

    def trainer(self, name: str, validate: Evaluator) -> Trainer:
        """Makes the trainer of one stage, with its batches, its validation and its folder."""
        config, data, world, folder = (
            configs.for_stage(self.config, name),
            self.data,
            self.world,
            self.stage_folders[name],
        )
        clips = given(data.train)
        stage = build.stage(config, self.network)
        stage.objective = build.objective(config, clips, len(data.classes), world.device)
        folder.mkdir(parents=True, exist_ok=True)
        loop = build.settings(config, len(clips), cuda=world.device.type == "cuda")
        log.info("%s", build.rate_line(config))
        order = TrainOrder(
            len(clips),
            configs.amounts_of(config).batch_size,
            parts=loop.parts,
            rank=world.rank,
            world=world.size,
            seed=config.seed,
            classes=build.sampled_classes(config, data.train),
        )
        loader = _loader(config, world, clips, order)
        run_logger = RunLogger(folder, active=world.first, loggers=factories(config.output.loggers))
        if world.first:
            write_status(folder, "running", steps=loop.epochs * loop.steps_per_epoch)

        def batches(epoch: int, first_step: int) -> Iterator[Batch]:
            order.start_at(epoch, first_step)
            return iter(loader)

        def scores() -> dict[str, float]:
            report = validate(stage, stage.variants[:1], config.evaluate.examples)
            if world.first and (sheet := sheet_of(config, data, report)):  # shows how the patches move during training
                run_logger.picture("patches", trainer.progress.step, sheet)
            places = report.places.scalars() if report.places else {}
            return {**report.scores[stage.variants[0]], "loss": report.loss, **places}

        typed = read_json(self.folder / "overrides.json", list) or []
        trainer = Trainer(
            stage,
            batches,
            scores,
            loop,
            world=world,
            run_logger=run_logger,
            checkpoints=checkpoint.CheckpointStore(folder, active=world.first),
            compiled=config.compile,
            protocol=data.validation,
            extra={"config": configs.to_dict(self.config), "classes": data.classes, "overrides": typed},
            signals=self.signals,
        )
        return trainer

    def _end_stage(self, name: str, trainer: Trainer) -> None:
        """Loads the weights that schedule.select chooses into the network, and records the stage's score."""
        self.world.barrier()
        config, progress = self.config, trainer.progress
        best = configs.for_stage(config, name).schedule.select == "best"
        trainer.finish(best=best)
        score, variant = progress.best if best else progress.last, trainer.stage.variants[0]
        log.info("stage %s: %s %s %.2f", name, variant, config.dataset.metric, score)
        self.stage_results.append({"stage": name, "answer": variant.label, "score": score, "seconds": progress.seconds})

    def _exit_early(self, early: EarlyExit, program: dict[str, Any] | None) -> None:
        rows = early.rows()
        if self.world.first:
            early.write_predictions(self.folder)
            write_exits(self.folder, early, rows, self.data.protocol, program)
            write_status(self.folder, "finished")

    def _find_constant_place(self, config: Config, stage: Stage) -> None:
        """Sets the stage's constant patch location, the mean of the policy's locations on training clips.

        After training it is measured and added to the checkpoint; in an evaluation it is read from the checkpoint.
        """
        if not stage.needs_constant:
            return
        if config.mode != "train":
            with as_user_error():
                stage.load_state_dict(self.content.get("stage") or {})
            if stage.constant_place is None:
                log.info("the constant patch is not evaluated: the checkpoint does not hold the policy's mean location")
            return
        train, world = given(self.data.train), self.world
        batch_size = config.evaluate.batch_size
        order = EvaluationOrder(len(train), batch_size, limit=TRAINING_CLIPS, rank=world.rank, world=world.size)
        stage.constant_place = learned_mean(stage, _loader(config, world, train, order), world)
        if stage.constant_place is None:
            log.info("the constant patch is not evaluated: no training clip could be read to measure its location")
        elif world.first:
            best = config.schedule.select == "best"
            checkpoint.CheckpointStore(self.folder).amend({"stage": stage.state_dict()}, best=best)


class Evaluator:
    """Evaluates stages on one split; the loader processes start at the first call and stay alive.

    Args:
        config: the configuration of the run's last stage.
        world: this process's rank and the communication with the others.
        clips: the data set.
        views: number of views per video (clips times crops); a batch holds evaluate.batch_size / views videos.
    """

    def __init__(self, config: Config, world: World, clips: ClipSource, views: int) -> None:
        self.world, self.size = world, len(clips)
        self.average, self.chunk = config.protocol.average, config.evaluate.batch_size
        order = EvaluationOrder(self.size, max(1, self.chunk // views), rank=world.rank, world=world.size)
        self.batches = _loader(config, world, clips, order)

    def __call__(
        self, stage: Stage, variants: tuple[Variant, ...], examples: int = 0, gallery: Gallery | None = None
    ) -> Report:
        """Evaluates the current weights, after copying the buffers of rank 0, which checkpoints store, to all ranks."""
        self.world.share_buffers(stage.model)
        return evaluate(
            stage,
            self.batches,
            self.size,
            self.world,
            variants=variants,
            examples=examples,
            average=self.average,
            chunk=self.chunk,
            gallery=gallery,
        )


def _loader(config: Config, world: World, clips: ClipSource, order: TrainOrder | EvaluationOrder) -> Loader:
    workers, timeout = config.loader.workers or 0, config.loader.timeout
    return Loader(clips, order, workers=workers, timeout=timeout, pin=world.device.type == "cuda")


def report_cost(config: Config, folder: Path) -> int:
    """Does the work of `mode=cost`: prints the multiply-adds of every part, without data, and writes cost.json."""
    classes = config.dataset.classes
    if classes is None:
        raise UserError("mode=cost needs the number of classes: set dataset.classes=N")
    network, cost = build.meta_model(config, classes), build.cost(config, classes)
    frames = build.tested_plan(config).seen
    found = {**cost.as_dict(), "frames": frames, "parameters": sum(p.numel() for p in network.parameters())}
    if method_of(config).exits_early:
        found["exits"] = cast(EarlyExitNetwork, network).exit_costs(cost)
    write_json(folder / "cost.json", found)
    show_cost(found, frames)
    return 0


if __name__ == "__main__":
    exit_process(run(Path(sys.argv[1]), named=sys.argv[2:]))
