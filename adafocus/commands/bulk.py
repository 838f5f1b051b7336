"""`adafocus predict RUN INPUT --table FOLDER`: any number of videos, in a table that a repeated command continues."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from adafocus.commands.loading import split_typed
from adafocus.core.errors import UserError

FORMAT = 1  # of the table


def run(options: argparse.Namespace, named: Sequence[str]) -> int:
    """Predicts the videos that the input names and the table does not hold; returns the exit status.

    The status is 1 if the table has a row with an error, or lacks a video because an engine gave none.

    Raises:
        UserError: the arguments, the input, the network or the table.
    """
    for name in ("draw", "json", "online", "spans"):
        if getattr(options, name):
            raise UserError(f"--{name} does not go with a --table that is a folder; choose a .csv, .jsonl or .parquet")
    if len(named) != 1:
        raise UserError(f"a --table that is a folder has one input, not {len(named)}; list the videos in a .txt file")
    from adafocus.batch import VideoPredictor
    from adafocus.batch.inputs import find_inputs
    from adafocus.batch.parts import PartTable
    from adafocus.data.annotations import read_classes
    from adafocus.predict import FRAMES

    make = partial(
        VideoPredictor,
        str(options.checkpoint),
        split_typed(options.rest)[0],
        plugins=options.plugins,
        top=options.top,
        early_exit=options.early_exit,
        budget=options.budget,
        classes=read_classes(options.classes) if options.classes else None,
        precision=options.precision,
        fold_norm=options.fold_norm,
        program=options.program,
        program_for=options.program_for,
    )
    # With Ray, or a GPU, the network of this process only describes the job.
    predictor = make(device=options.device)
    dataset = predictor.predictor.settings.dataset
    template = dataset.frame_template or FRAMES
    videos = find_inputs(named[0], column=options.column, root=options.root, template=template)
    predictor.root = videos.root
    job = {
        "format": FORMAT,
        "network": predictor.predictor.network,
        "classes": predictor.predictor.classes,
        "protocol": predictor.predictor.protocol,
        "labels": predictor.top,
    }
    with PartTable(options.table, {"id": str, **predictor.columns}, job) as table:
        left = {name: path for name, path in videos.paths.items() if name not in table.done}
        for row in _rows(options, make, predictor, left, videos.root):
            table.write(row)
        missing = len(videos.paths.keys() - table.done)
        known = f"{len(table.done)} videos ({len(left)} of them now)"
        errors = f", {table.errors} with an error" if table.errors else ""
        repeated = f"; {videos.repeated} rows name a video again" if videos.repeated else ""
        sys.stdout.write(f"{options.table}: {known}{errors}{repeated}\n")
        if missing:
            sys.stderr.write(f"error: {missing} videos have no row; the same command with --engine local tries them\n")
    return 1 if table.errors or missing else 0


def _rows(
    options: argparse.Namespace, make: Any, predictor: Any, videos: dict[str, str], root: str | None
) -> Iterator[dict[str, Any]]:
    """The rows of the engine, counted on the terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from adafocus.batch.engines import predict_locally, predict_on_ray

    gpu = predictor.predictor.device.type == "cuda"
    if not videos:
        return
    if options.engine == "ray":
        remote = partial(make, device=options.device, root=root)
        rows = predict_on_ray(remote, videos, options.workers, gpu=gpu)
    else:
        rows = predict_locally(predictor, videos, options.workers or (1 if gpu else _cores()))
    terminal = Console(stderr=True)
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        yield from progress.track(rows, total=len(videos), description="videos")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
