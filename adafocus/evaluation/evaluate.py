"""Evaluation: every video of a split exactly once, whatever the number of processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from adafocus.core.batch import BadVideo, Batch, only
from adafocus.core.output import Output
from adafocus.core.stage import Stage
from adafocus.core.variants import Variant
from adafocus.evaluation import metrics
from adafocus.evaluation.gallery import Example, Gallery
from adafocus.evaluation.places import PlaceStatistics, place_statistics
from adafocus.processes.distributed import World


@dataclass
class Report:
    """Result of an evaluation: scores of every variant in percent, unreadable videos, seconds, and example clips.

    `loss` is the cross entropy of the first variant with each video's first label, without the options of the recipe.
    `places` are the patch locations that the policy chose; None if the first variant has no learned locations or there
    are several views per video. `gallery` are the clips that a `Gallery` kept.
    """

    scores: dict[Variant, dict[str, float]]
    logits: dict[Variant, Tensor]
    labels: Tensor
    bad: list[BadVideo]
    seconds: float
    videos: int
    loss: float
    examples: list[Example] = field(default_factory=list)
    places: PlaceStatistics | None = None
    gallery: list[Example] = field(default_factory=list)

    @property
    def valid(self) -> Tensor:
        """(videos,) bool: whether each video could be read."""
        valid = torch.ones(self.videos, dtype=torch.bool)
        valid[[video.index for video in self.bad]] = False
        return valid


def evaluate(
    stage: Stage,
    batches: Iterable[Batch],
    size: int,
    world: World,
    *,
    variants: tuple[Variant, ...],
    examples: int = 0,
    average: str = "logits",
    chunk: int = 32,
    gallery: Gallery | None = None,
) -> Report:
    """Evaluates this process's share of a split and merges the results of all processes.

    Args:
        stage: the stage with the network.
        batches: this process's share of the videos, without padding.
        size: number of videos of the whole split, to check that each was evaluated exactly once.
        world: the processes.
        variants: the evaluation variants to compute; see `Stage.variants`.
        examples: number of clips of this process to keep for pictures.
        average: how the views of a video are averaged, see `metrics.average_views`.
        chunk: number of clips per forward pass if videos have several views.
        gallery: keeps clips of this process for a report; those of all processes are merged.
    """
    started = time.monotonic()
    shares: list[dict[str, object]] = []
    kept: list[Example] = []
    for batch in batches:
        valid = batch.valid
        answers: dict[Variant, Output] = {}
        if valid.any():
            readable = batch if valid.all() else only(batch, valid)
            answers = answer(stage, readable, world.device, variants, average, chunk)
            main = answers[variants[0]]
            kept += [_example(stage, readable, main, row) for row in range(min(examples - len(kept), len(readable)))]
            if gallery is not None:
                _offer(gallery, stage, readable, main)
            if not readable.valid.all():  # a chosen frame could not be read
                answers = {name: _rows(output, readable.valid) for name, output in answers.items()}
                if readable is not batch:
                    valid[valid.clone()] = readable.valid
        shares.append(
            {
                "index": batch.index,
                "labels": batch.labels,
                "valid": valid,
                "bad": batch.bad,
                "logits": {name: output.logits.float().cpu() for name, output in answers.items()},
                "where": _learned(variants[0], answers),
            }
        )
    gathered = [share for part in world.gather(shares) for share in part]
    report = _join(gathered, size, variants)
    report.seconds, report.examples = time.monotonic() - started, kept
    if gallery is not None:
        gallery.keep(example for part in world.gather(gallery.kept) for example in part)
        report.gallery = gallery.kept
    if where := [share["where"] for share in gathered if share["where"] is not None]:
        network, chosen = cast(Any, stage.model), torch.cat(where)
        report.places = place_statistics(chosen, network.boxes(chosen), network.frame_size)
    return report


def _rows(output: Output, rows: Tensor) -> Output:
    """The logits and patch locations of some clips of a batch."""
    where = None if output.where is None else output.where[rows.to(output.where.device)]
    return replace(output, logits=output.logits[rows.to(output.logits.device)], where=where)


def _learned(main: Variant, answers: dict[Variant, Output]) -> Tensor | None:
    """Patch locations (B, T, 2 or 4) that the policy chose; None if the main variant has none."""
    where = answers[main].where if main.where == "learned" and answers else None
    return None if where is None else where.float().cpu()


def answer(
    stage: Stage, batch: Batch, device: torch.device, variants: tuple[Variant, ...], average: str, chunk: int
) -> dict[Variant, Output]:
    """Outputs by variant for a batch; several views per video run `chunk` clips at a time and are averaged."""
    if batch.frames.ndim == 5:
        return stage.evaluate(batch.to(device), variants)
    views = batch.frames.shape[1]
    frames = batch.frames.flatten(0, 1)
    video = torch.arange(len(batch)).repeat_interleave(views)
    logits: dict[Variant, list[Tensor]] = {name: [] for name in variants}
    for rows in torch.arange(len(video)).split(chunk):
        of = video[rows]
        part = replace(
            batch,
            frames=frames[rows[0] : rows[-1] + 1],
            labels=batch.labels[of],
            index=batch.index[of],
            valid=batch.valid[of],
        )
        for name, output in stage.evaluate(part.to(device), variants).items():
            logits[name].append(output.logits.float())
    joined = {name: torch.cat(parts).unflatten(0, (-1, views)) for name, parts in logits.items()}
    return {name: Output(metrics.average_views(scores, average)) for name, scores in joined.items()}


def _example(stage: Stage, batch: Batch, output: Output, row: int) -> Example:
    """A clip of a batch with its patches; of several views the first."""
    frames = batch.frames[row] if batch.frames.ndim == 5 else batch.frames[row, 0]
    if output.focus_frames is not None:
        frames = output.focus_frames[row]
    boxes = None
    if output.where is not None:
        boxes = stage.model.boxes(output.where[row].float()).cpu()
        if len(boxes) == 1:  # one place for all frames
            boxes = boxes.expand(len(frames), -1)
        elif (
            output.focus_frames is None and output.frames is not None
        ):  # steps are in processing order, pictures in time
            boxes = boxes[output.frames[row].cpu().argsort()]
    return Example(frames.cpu(), boxes, int(batch.labels[row, 0]), int(output.logits[row].argmax()))


def _offer(gallery: Gallery, stage: Stage, batch: Batch, output: Output) -> None:
    """Offers the clips of a batch, without those of which a chosen frame could not be read."""
    rows = batch.valid.nonzero()[:, 0]

    def show(number: int, answer: int, probability: float) -> Example:
        row = int(rows[number])
        example = _example(stage, batch, output, row)
        frames = example.frames.clone()  # a view would keep the whole batch in memory
        return replace(example, frames=frames, answer=answer, index=int(batch.index[row]), probability=probability)

    gallery.offer(batch.index[rows], batch.labels[rows, 0], output.logits.float().cpu()[rows], show)


def _join(shares: list[dict], size: int, variants: tuple[Variant, ...]) -> Report:
    index = torch.cat([share["index"] for share in shares])
    if not torch.equal(index.sort().values, torch.arange(size)):
        raise RuntimeError(f"evaluation saw {len(index)} videos of {size}, or some twice")
    labels = torch.empty(size, shares[0]["labels"].shape[1], dtype=torch.int64)
    labels[index] = torch.cat([share["labels"] for share in shares])
    valid = torch.empty(size, dtype=torch.bool)
    valid[index] = torch.cat([share["valid"] for share in shares])
    bad = sorted((item for share in shares for item in share["bad"]), key=lambda item: item.index)
    classes = next(
        (share["logits"][variants[0]].shape[1] for share in shares if share["logits"]), 1 + int(labels.max())
    )
    logits = {}
    for name in variants:
        logits[name] = torch.zeros(size, classes)
        for share in shares:
            if share["logits"]:
                logits[name][share["index"][share["valid"]]] = share["logits"][name]
    scores = {name: metrics.scores(logits[name], labels, valid) for name in variants}
    return Report(scores, logits, labels, bad, 0.0, size, metrics.loss(logits[variants[0]], labels, valid))
