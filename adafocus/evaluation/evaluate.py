"""Evaluation: every video of a split exactly once, whatever the number of processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from adafocus.core.batch import BadVideo, Batch, only
from adafocus.core.output import Output
from adafocus.core.stage import PatchNetwork, Stage
from adafocus.core.variants import Variant
from adafocus.evaluation import metrics
from adafocus.evaluation.gallery import Example, Gallery
from adafocus.evaluation.places import (
    PlaceStatistics,
    boxes_of_frames,
    center_distance,
    motion_share,
    place_statistics,
)
from adafocus.processes.distributed import World


@dataclass
class Report:
    """Result of an evaluation: scores of every variant in percent, unreadable videos, seconds, and example clips.

    `loss` is the plain cross entropy of the first variant with each video's first label (no label smoothing or
    weights). `places` are statistics of the patch locations that the policy chose; None if the first variant has no
    learned locations or there are several views per video. `gallery` has the clips that a `Gallery` selected.
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
        """Mask (videos,) that is True for the videos that could be read."""
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
        world: this process's rank and the communication with the others.
        variants: the evaluation variants to compute; see `Stage.variants`.
        examples: number of clips of this process to keep for pictures.
        average: how the views of a video are averaged, see `metrics.average_views`.
        chunk: number of clips per forward pass if videos have several views.
        gallery: selects clips of this process for a report; those of all processes are merged.
    """
    started = time.monotonic()
    shares: list[dict[str, Any]] = []
    kept: list[Example] = []
    for batch in batches:
        valid = batch.valid
        answers: dict[Variant, Output] = {}
        held: dict[str, Tensor] = {}
        if valid.any():
            readable = batch if valid.all() else only(batch, valid)
            answers = answer(stage, readable, world.device, variants, average, chunk)
            main = answers[variants[0]]
            held = _held(stage, readable, answers)
            if examples > len(kept) or gallery is not None:
                seen = _looked_at(stage, readable, main)
                kept += [
                    _example(*seen, readable, main, row) for row in range(min(examples - len(kept), len(readable)))
                ]
                if gallery is not None:
                    _offer(gallery, seen, readable, main)
            if not readable.valid.all():  # a chosen frame could not be read
                answers = {name: _rows(output, readable.valid) for name, output in answers.items()}
                held = {name: share[readable.valid] for name, share in held.items()}
                if readable is not batch:
                    valid[valid.clone()] = readable.valid
        shares.append(
            {
                "index": batch.index,
                "labels": batch.labels,
                "valid": valid,
                "bad": batch.bad,
                "logits": {name: output.logits.float().cpu() for name, output in answers.items()},
                "where": _learned(stage, variants[0], answers),
                "held": held,
            }
        )
    gathered = [share for part in world.gather(shares) for share in part]
    report = _join(gathered, size, variants)
    report.seconds, report.examples = time.monotonic() - started, kept
    if gallery is not None:
        gallery.keep(example for part in world.gather(gallery.kept) for example in part)
        report.gallery = gallery.kept
    if where := [share["where"] for share in gathered if share["where"] is not None]:
        network, chosen = stage.chooser, torch.cat(where)
        report.places = _places(network, chosen, gathered, stage.constant_place)
    return report


def _places(
    network: PatchNetwork, chosen: Tensor, shares: list[dict[str, Any]], constant: Tensor | None
) -> PlaceStatistics:
    boxes, size = network.boxes(chosen), network.frame_size
    found = place_statistics(chosen, boxes, size, frames_vary=network.place_per_frame)
    held: dict[str, Any] = {}
    for name in ("moving", "moving_constant", "covered"):
        if parts := [share["held"][name] for share in shares if name in share["held"]]:
            held[name] = float(torch.cat(parts).mean())
    if constant is not None:
        held["from_constant"] = center_distance(boxes, network.boxes(constant.view(-1, chosen.shape[-1])), size)
    return replace(found, **held)


def _rows(output: Output, rows: Tensor) -> Output:
    """Returns the output with the logits and patch locations of only some clips of the batch."""
    where = None if output.where is None else output.where[rows.to(output.where.device)]
    return replace(output, logits=output.logits[rows.to(output.logits.device)], where=where)


def _learned(stage: Stage, main: Variant, answers: dict[Variant, Output]) -> Tensor | None:
    """Returns the patch locations (B, T, 2 or 4) that the policy chose; None if it chose none, or cells."""
    if main.where != "learned" or not answers or stage.chooser.chooses_cells:
        return None
    where = answers[main].where
    return None if where is None else where.float().cpu()


def answer(
    stage: Stage, batch: Batch, device: torch.device, variants: tuple[Variant, ...], average: str, chunk: int
) -> dict[Variant, Output]:
    """Predicts a batch in each variant; averages the views of a video, which run `chunk` clips at a time."""
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


def _looked_at(stage: Stage, batch: Batch, output: Output) -> tuple[Tensor, Tensor | None]:
    """Returns the frames (B, T, H, W, C) uint8 that patches were cut from, and the patches (B, T, P, 4) of each frame.

    Frames are in temporal order; if there are several views per video, those of the first. Each of the P patches is
    (top, left, height, width) in pixels. The patches are None if the network saw whole frames.
    """
    network, frames = stage.chooser, batch.frames if batch.frames.ndim == 5 else batch.frames[:, 0]
    if output.focus_frames is not None:
        frames = output.focus_frames.to(frames.device)
    elif output.where is not None and not network.place_per_frame:
        frames = network.focus_frames(frames)
    if output.where is None:
        return frames, None
    boxes = network.boxes(output.where.float()).to(frames.device)
    if network.chooses_cells and output.frames is not None:
        numbers = output.frames.to(boxes.device)
        return frames, _padded([boxes_of_frames(*row)[1] for row in zip(numbers, boxes, strict=True)], frames)
    if not network.place_per_frame:
        return frames, boxes[:, None].expand(-1, frames.shape[1], -1, -1)
    if output.focus_frames is None and output.frames is not None:  # steps are in processing order, frames in time
        boxes = boxes.gather(1, output.frames.to(boxes.device).argsort(1)[..., None].expand_as(boxes))
    return frames, boxes[:, :, None]


def _padded(boxes: list[Tensor], frames: Tensor) -> Tensor:
    """Stacks the patches (T', P', 4) of each clip as (B, T, P, 4), padded with patches of size 0."""
    found = torch.zeros(*frames.shape[:2], max(clip.shape[1] for clip in boxes), 4, device=frames.device)
    for row, clip in zip(found, boxes, strict=True):
        row[: clip.shape[0], : clip.shape[1]] = clip
    return found


def _held(stage: Stage, batch: Batch, answers: dict[Variant, Output]) -> dict[str, Tensor]:
    """Returns shares (B,) of motion and area inside the learned patches, and of motion inside the constant patches."""
    shares: dict[str, Tensor] = {}
    main = next(iter(answers))
    if main.where != "learned" or stage.chooser.chooses_cells:
        return shares
    for variant, output in answers.items():
        if output.where is None or variant.where not in ("learned", "constant") or variant.when != main.when:
            continue
        frames, boxes = _looked_at(stage, batch, output)
        if boxes is None or frames.shape[1] != boxes.shape[1] or frames.shape[1] < 2:
            continue
        share = motion_share(frames, boxes)
        if variant.where == "learned":
            shares |= {"moving": share.moving.cpu(), "covered": share.covered.cpu()}
        else:
            shares["moving_constant"] = share.moving.cpu()
    return shares


def _example(frames: Tensor, boxes: Tensor | None, batch: Batch, output: Output, row: int) -> Example:
    """Makes an `Example` of clip `row` of a batch, with its frames and the patches in them (`_looked_at`)."""
    patches, clip = None if boxes is None else boxes[row].cpu(), frames[row].cpu()
    if patches is not None:  # frames without a patch only pad the batch
        with_patch = patches[..., 2].amax(1) > 0
        patches, clip = patches[with_patch], clip[with_patch]
    return Example(clip, patches, int(batch.labels[row, 0]), int(output.logits[row].argmax()))


def _offer(gallery: Gallery, seen: tuple[Tensor, Tensor | None], batch: Batch, output: Output) -> None:
    """Offers the readable clips of a batch to the gallery; `seen` is the result of `_looked_at`."""
    rows = batch.valid.nonzero()[:, 0]

    def show(number: int, answer: int, probability: float) -> Example:
        row = int(rows[number])
        example = _example(*seen, batch, output, row)
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
