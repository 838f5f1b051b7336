"""Writes the results of a finished run: summary.json, images, tables, the report, and the table on the terminal."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from adafocus import build
from adafocus.config.schema import Config
from adafocus.core.cost import Cost
from adafocus.core.files import read_json, write_json
from adafocus.core.stage import Stage
from adafocus.core.status import write_status
from adafocus.core.variants import Variant
from adafocus.evaluation.evaluate import Report
from adafocus.evaluation.intervals import intervals
from adafocus.processes.backends import backend_settings
from adafocus.processes.distributed import World
from adafocus.runs.predictions import write_predictions
from adafocus.runs.report import write_report
from adafocus.runs.report.strips import write_examples
from adafocus.runs.table import places_line, show
from adafocus.training.logger import log
from adafocus.training.settings import Progress

PACKAGES = ("adafocus", "torch", "torchvision", "numpy", "decord", "av", "hydra-core")


def finish(
    settings: Config,
    folder: Path,
    world: World,
    stage: Stage,
    data: build.Data,
    cost: Cost,
    progress: Progress,
    report: Report,
    seconds: float,
    gains: list[dict[str, Any]],
    program: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes summary.json (with the unreadable videos), patches.png, predictions.csv and the report, prints the table.

    Returns:
        the content of summary.json.
    """
    for bad in report.bad:
        log.warning("unreadable video, counted as wrong: %s", bad.reason)
    costs = stage.costs(cost)
    main = stage.variants[0]
    metric = settings.dataset.metric
    found = {name: dict(values) for name, values in data.found.items()}
    if "train" in found:
        found["train"]["unreadable"] = int(found["train"]["unreadable"]) + len(progress.bad)
    found["evaluate"]["unreadable"] = len(report.bad)
    summary = {
        "format": 1,
        "state": "finished",
        "name": folder.name,
        "choices": read_json(folder / "choices.json", dict),
        "overrides": read_json(folder / "overrides.json", list),
        "seed": settings.seed,
        "protocol": data.protocol,
        "metric": metric,
        "score": report.scores[main][metric],
        "scores": report.scores[main],
        "rows": _rows(stage, report, costs, metric),
        "places": _places(stage, report),
        "selected": settings.schedule.select,
        "stages": gains if len(gains) > 1 else None,
        "best": {"score": progress.best, "epoch": progress.best_epoch} if progress.best_epoch >= 0 else None,
        "cost": {**cost.as_dict(), "total": costs[main]},
        "cost_whole_frames": build.whole_frames_cost(settings, len(data.classes)),
        "parameters": sum(parameter.numel() for parameter in stage.model.parameters()),
        "seconds": {
            "train": progress.seconds,
            "evaluate": report.seconds,
            "per_video": report.seconds / report.videos,
            "all": seconds,
        },
        "data": found,
        "unreadable": {
            "train": {**data.unreadable.get("train", {}), **progress.bad},
            "evaluate": {bad.path: bad.reason for bad in report.bad},
        },
        **_environment(world, program),
    }
    log.info("%s: %s", metric, ", ".join(f"{row['name']} {row['score']:.1f}" for row in summary["rows"]))
    if summary["places"]:
        log.info("%s", places_line(summary["places"]))
    picture = _draw(settings, folder, data, report)
    summary["picture"] = picture.name if picture else None
    _write_predicted(folder, data, report)
    write_json(folder / "summary.json", summary)
    write_status(folder, "finished", step=progress.step, steps=progress.step)
    write_report(folder)
    show(folder, summary)
    return summary


def _rows(stage: Stage, report: Report, costs: dict[Variant, int], metric: str) -> list[dict[str, Any]]:
    """Returns score, cost and 95 % intervals of every variant; `behind` is the interval of the method's lead."""
    logits = {variant.label: values for variant, values in report.logits.items()}
    found = intervals(logits, report.labels, report.valid, metric)
    return [
        {
            "name": variant.label,
            "score": report.scores[variant][metric],
            "cost": costs[variant],
            "interval": found[variant.label].score,
            "behind": None if variant == stage.variants[0] else found[variant.label].behind,
        }
        for variant in stage.answerable
    ]


def _write_predicted(folder: Path, data: build.Data, report: Report) -> None:
    """Writes predictions.csv, and the clips that report.html shows."""
    paths = [data.test.path(index) for index in range(len(data.test))]
    logits = {variant.label: values for variant, values in report.logits.items()}
    bad = {video.index: video.reason for video in report.bad}
    write_predictions(folder, paths, data.classes, report.labels, logits, bad)
    write_examples(folder, report.gallery, paths, data.classes)


def _places(stage: Stage, report: Report) -> dict[str, Any] | None:
    """Returns the statistics of the policy's patch locations, and the constant location; None without a policy."""
    if report.places is None:
        return None
    constant = None if stage.constant_place is None else stage.constant_place.tolist()
    return {**report.places.as_dict(), "constant": constant}


def _draw(settings: Config, folder: Path, data: build.Data, report: Report) -> Path | None:
    sheet = sheet_of(settings, data, report)
    if sheet is None:
        return None
    sheet.save(folder / "patches.png")
    return folder / "patches.png"


def sheet_of(settings: Config, data: build.Data, report: Report) -> Image | None:
    """Draws the report's example clips with their patches; None without examples."""
    if not report.examples:
        return None

    from adafocus.runs.plots import contact_sheet

    examples = report.examples
    return contact_sheet(
        [example.frames.numpy() for example in examples],
        [None if example.boxes is None else example.boxes.numpy() for example in examples],
        [f"{data.classes[example.label]}, predicted {data.classes[example.answer]}" for example in examples],
        [example.label == example.answer for example in examples],
    )


def _environment(world: World, program: dict[str, Any] | None) -> dict[str, Any]:
    """Returns versions, device, settings of torch's backends, and how the backbones ran if not as in training."""
    backends = backend_settings(world.device)
    return {"versions": _versions(), "device": _device_name(world), "backends": backends, "inference": program}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # the package runs from a checkout, or an optional reader is not installed
            continue
    return versions


def _device_name(world: World) -> str:
    if world.device.type == "cuda":
        return f"{world.size} x {torch.cuda.get_device_name(world.device)}"
    return f"{world.size} x CPU, {torch.get_num_threads()} threads ({platform.machine()})"
