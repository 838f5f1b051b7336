"""One process of a job: reads the run folder, does what its configuration says, and says how it ended.

`python -m adafocus.worker FOLDER`, with RANK, WORLD_SIZE and LOCAL_RANK in the environment.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from adafocus import build, config, weights
from adafocus.batch import Batch
from adafocus.data.dataset import ClipSource
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder
from adafocus.engine import checkpoint
from adafocus.engine.cost import Cost, count
from adafocus.engine.distributed import World, join
from adafocus.engine.evaluate import Report, evaluate
from adafocus.engine.files import read_json, write_json
from adafocus.engine.folder import lock
from adafocus.engine.journal import Journal, log, start_logging
from adafocus.engine.launch import die_with_parent
from adafocus.engine.loop import Progress, Trainer
from adafocus.engine.status import write_status
from adafocus.engine.table import show, show_cost
from adafocus.errors import UserError
from adafocus.schema import Config
from adafocus.stages.base import Stage

PACKAGES = ("adafocus", "torch", "torchvision", "numpy", "decord", "av", "hydra-core")


def run(folder: Path, settings: Config | None = None) -> int:
    """Does the job of a folder; returns the exit status. Every end is written to status.json."""
    settings = settings or config.read(folder)
    rank = int(os.environ.get("RANK", 0))
    start_logging(folder, rank=rank)
    told = False
    try:
        with lock(folder) if rank == 0 else nullcontext():
            try:
                if rank == 0:  # an older failure is over
                    old = read_json(folder / "status.json") or {}
                    write_status(folder, "running", step=old.get("step", 0), steps=old.get("steps", 0))
                with join(settings.device, settings.loader.timeout + 60) as world:
                    _do(settings, folder, world)
            except BaseException as error:
                told = not _end_badly(folder, rank, error)
                raise
    except UserError as error:
        if not told:
            sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        if not told:
            sys.stderr.write("interrupted; the same command continues this run\n")
        return 130
    return 0


def _end_badly(folder: Path, rank: int, error: BaseException) -> bool:
    """Notes the reason where other programs look for it; False if another process of this run has done so already."""
    if rank:
        time.sleep(0.5)  # most errors are everybody's: then the first process is the one that speaks
    status = read_json(folder / "status.json") or {}
    if status.get("state") in ("failed", "interrupted"):
        return False
    state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    reason = str(error) or type(error).__name__
    if not isinstance(error, (UserError, KeyboardInterrupt)):
        reason = f"{type(error).__name__}: {reason.splitlines()[0]}"
        log.error("%s", traceback.format_exc())
    if rank:
        reason = f"rank {rank}: {reason}"
    write_status(folder, state, step=status.get("step", 0), steps=status.get("steps", 0), error=reason)
    return True


def _do(settings: Config, folder: Path, world: World) -> None:
    if settings.devices != world.size:
        raise UserError(f"devices={settings.devices}, but {world.size} processes were started; make them agree")
    started = time.monotonic()
    data = build.data(settings)
    _say_data(data, folder, world)
    with torch.device("cpu"):
        network = build.seeded_model(settings, len(data.classes), weights=settings.mode == "train")
    cost = count(
        _on_meta(settings, len(data.classes)),
        build.clip_frames(settings),
        settings.dataset.frame_size,
        build.channels(settings),
    )
    if settings.mode == "train" and settings.init.get("from") and not (folder / checkpoint.LAST).is_file():
        path = _checkpoint_file("init.from", settings.init["from"], settings.schedule.select)
        log.info("start from %s: %s", path, weights.load_start(path, network))
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)
    stage = build.stage(settings, network.to(world.device))
    test = _Judge(settings, stage, world, data.test, data.views)
    progress = Progress()
    if settings.mode == "train":
        judge = test if data.validate is data.test else _Judge(settings, stage, world, data.validate, 1)
        progress = _train(settings, folder, world, stage, data, judge)
    else:
        _load_checkpoint(settings, network, data.classes)
    report = test(stage.variants, settings.evaluate.examples)
    if world.first:
        _finish(settings, folder, world, stage, data, cost, progress, report, time.monotonic() - started)


class _Judge:
    """Evaluates the stage on a split; the loader's processes live from its first call on.

    Args:
        views: of a video; so many fewer videos make a batch.
    """

    def __init__(self, settings: Config, stage: Stage, world: World, clips: ClipSource, views: int) -> None:
        self.stage, self.world, self.size = stage, world, len(clips)
        self.average, self.chunk = settings.protocol.average, settings.evaluate.batch
        order = EvaluationOrder(self.size, max(1, self.chunk // views), rank=world.rank, world=world.size)
        self.batches = Loader(
            clips,
            order,
            workers=settings.loader.workers,
            timeout=settings.loader.timeout,
            pin=world.device.type == "cuda",
        )

    def __call__(self, variants: tuple[str, ...], examples: int = 0) -> Report:
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


def _train(settings: Config, folder: Path, world: World, stage: Stage, data: build.Data, judge: _Judge) -> Progress:
    """Trains and leaves the weights that the summary is about in the model."""
    loop = build.settings(settings, len(data.train))
    log.info("%s", build.rate_line(settings))
    order = TrainOrder(
        len(data.train),
        settings.schedule.batch,
        parts=loop.parts,
        rank=world.rank,
        world=world.size,
        seed=settings.seed,
    )
    loader = Loader(
        data.train,
        order,
        workers=settings.loader.workers,
        timeout=settings.loader.timeout,
        pin=world.device.type == "cuda",
    )

    def batches(epoch: int, first_step: int) -> Iterator[Batch]:
        order.start_at(epoch, first_step)
        return iter(loader)

    journal = Journal(folder, active=world.first, tensorboard=settings.output.tensorboard)
    keeper = checkpoint.Keeper(folder)
    if world.first:
        write_status(folder, "running", steps=loop.epochs * loop.steps_per_epoch)
    trainer = Trainer(
        stage,
        batches,
        lambda: judge(stage.variants[:1]).scores[stage.variants[0]],
        loop,
        world=world,
        journal=journal,
        keeper=keeper,
        compiled=settings.compile,
        protocol=data.validation,
        extra={"config": config.to_dict(settings), "classes": data.classes},
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
    cost = count(
        _on_meta(settings, classes), build.clip_frames(settings), settings.dataset.frame_size, build.channels(settings)
    )
    write_json(folder / "cost.json", cost.as_dict())
    show_cost(cost.as_dict(), build.clip_frames(settings))
    return 0


def _on_meta(settings: Config, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return build.model(settings, num_classes, weights=False)


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


def _load_checkpoint(settings: Config, network: nn.Module, classes: list[str]) -> None:
    """Weights of a run folder or of a file, ours or an official one."""
    path = _checkpoint_file("checkpoint", settings.checkpoint, settings.schedule.select)
    report = weights.load_checkpoint(path, network)
    if report.classes is not None and report.classes != classes:
        place = next(i for i, pair in enumerate(zip(report.classes, classes, strict=True)) if pair[0] != pair[1])
        raise UserError(
            f"checkpoint {path} was trained on other classes: class {place} is {report.classes[place]!r} there and "
            f"{classes[place]!r} in dataset={settings.dataset.name}; put the class file in the order of the checkpoint"
        )
    log.info("checkpoint %s: %s", path, report)


def _say_data(data: build.Data, folder: Path, world: World) -> None:
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
    write_json(folder / "data.json", {"found": data.found, "missing": data.missing, "classes": data.classes})


def _finish(
    settings: Config,
    folder: Path,
    world: World,
    stage: Stage,
    data: build.Data,
    cost: Cost,
    progress: Progress,
    report: Report,
    seconds: float,
) -> None:
    """Writes what the run found: summary.json, the list of unreadable videos, the picture; prints the table."""
    for bad in report.bad:
        log.warning("unreadable video, counted as wrong: %s", bad.reason)
    costs = stage.costs(cost.parts)
    main = stage.variants[0]
    metric = settings.dataset.metric
    found = {name: dict(values) for name, values in data.found.items()}
    found["train"]["unreadable"] = int(found["train"]["unreadable"]) + len(progress.bad)
    found["evaluate"]["unreadable"] = len(report.bad)
    summary = {
        "format": 1,
        "state": "finished",
        "name": folder.name,
        "choices": read_json(folder / "choices.json"),
        "overrides": read_json(folder / "overrides.json"),
        "seed": settings.seed,
        "protocol": data.protocol,
        "metric": metric,
        "score": report.scores[main][metric],
        "scores": report.scores[main],
        "rows": [{"name": name, "score": report.scores[name][metric], "cost": costs[name]} for name in stage.variants],
        "selected": settings.schedule.select,
        "best": {"score": progress.best, "epoch": progress.best_epoch} if progress.best_epoch >= 0 else None,
        "published": config.to_dict(settings)["published"],
        "cost": {"parts": cost.parts, "total": costs[main], "published": cost.published},
        "parameters": sum(parameter.numel() for parameter in stage.model.parameters()),
        "seconds": {
            "train": progress.seconds,
            "evaluate": report.seconds,
            "per_video": report.seconds / report.videos,
            "all": seconds,
        },
        "data": found,
        "unreadable": {
            "train": progress.bad,
            "evaluate": {bad.path: bad.reason for bad in report.bad},
        },
        "versions": _versions(),
        "device": _device_name(world),
    }
    picture = _draw(settings, folder, data, report)
    summary["picture"] = picture.name if picture else None
    write_json(folder / "summary.json", summary)
    steps = progress.step
    write_status(folder, "finished", step=steps, steps=steps)
    show(folder, summary)


def _draw(settings: Config, folder: Path, data: build.Data, report: Report) -> Path | None:
    if not report.examples:
        return None
    from adafocus.pictures import contact_sheet

    examples = report.examples
    sheet = contact_sheet(
        [example.frames.numpy() for example in examples],
        [None if example.where is None else example.where.numpy() for example in examples],
        settings.patch.size,
        [f"{data.classes[example.label]}, answered {data.classes[example.answer]}" for example in examples],
        [example.label == example.answer for example in examples],
    )
    sheet.save(folder / "patches.png")
    return folder / "patches.png"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout, or an optional reader
            continue
    return versions


def _device_name(world: World) -> str:
    if world.device.type == "cuda":
        return f"{world.size} x {torch.cuda.get_device_name(world.device)}"
    return f"{world.size} x CPU, {torch.get_num_threads()} threads ({platform.machine()})"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    die_with_parent()
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster that takes its machine back
    sys.exit(run(Path(sys.argv[1])))
