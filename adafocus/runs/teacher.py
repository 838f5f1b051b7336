"""Logits of a teacher for the training clips, computed once and stored in the run folder.

The teacher sees each video once, in the view of its own evaluation: its own frames and size, the center crop, no
augmentation. The logits are used for every augmented version of the clip, except that a flip that exchanges classes
also exchanges their logits, and mixed clips have mixed targets. A "consistent" teacher, which sees every augmented clip
(arXiv 2106.05237), would have to run in every step.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from adafocus import build, predict
from adafocus import config as configs
from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.core.files import write_bytes
from adafocus.data.dataset import ClipSource, GlyphClips
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.evaluation.evaluate import answer, only
from adafocus.processes.distributed import World
from adafocus.training.logger import counting, log

FILE = "teacher.pt"
CHUNK = 256  # number of videos between two writes of the file
#: Keys of `dataset` that are taken from the teacher (how it sees a clip); the others, such as paths, from the student.
_VIEW = (
    *("frame_size", "glance_reduction", "fit", "short_side", "short_videos", "separate_crops", "decode_short_side"),
    *("modality", "snippet", "mean", "std"),
)


@dataclass
class Table:
    """The teacher's logits of a run, as its file stores them.

    Attributes:
        run, teacher: hashes of the run's training clips, and of the teacher's checkpoint file.
        logits: (N, K) logits of every training clip; NaN if the teacher could not read the video.
        done: (N,) bool, True for the clips that were computed.
    """

    run: str
    teacher: str
    logits: Tensor
    done: Tensor

    def write(self, folder: Path) -> None:
        """Writes the file atomically."""
        write_bytes(folder / FILE, lambda file: torch.save(asdict(self), file))


def teach(config: Config, data: build.Data, folder: Path, world: World, *, begun: bool) -> None:
    """Sets the teacher's logits of the training clips; computes those that the run folder does not hold yet.

    Args:
        config: the configuration of the run.
        data: its data; `data.train.teacher` is set.
        folder: the run folder.
        world: the processes, among which the clips are divided.
        begun: whether a checkpoint of this run exists; then all logits are stored and the teacher is not needed.

    Raises:
        UserError: the teacher cannot be read, or has other classes than the data.
    """
    clips, classes = cast(ClipSource, data.train), data.classes  # a run that trains has training clips
    names = [clips.path(index) for index in range(len(clips))]
    run = _digest(json.dumps([configs.identity(configs.to_dict(config)), names], sort_keys=True).encode())
    kept = _read(folder / FILE, run, (len(names), len(classes)))
    world.barrier()  # every process has read the file before one writes it
    if kept is not None and begun and kept.done.all():
        clips.teacher = kept.logits
        return
    path = predict.checkpoint_file(str(config.teacher.checkpoint))
    teacher = predict.load(path, device="cpu")
    _check_classes(path, teacher.classes, classes)
    file = _digest(path.read_bytes())
    if kept is None or kept.teacher != file:
        shape = (len(names), len(classes))
        kept = Table(run, file, torch.full(shape, torch.nan), torch.zeros(len(names), dtype=torch.bool))
    seen = build.data(_config_of(config, teacher.settings, data), collected=data.collected)
    log.info("teacher %s: %s", path, seen.validation)
    _compute(kept, teacher, cast(ClipSource, seen.train), config, folder, world)
    clips.teacher = kept.logits
    unread = int(kept.logits.isnan().any(1).sum())
    if unread:
        log.warning("the teacher could not read %d training videos; for these only their labels are a target", unread)


def _compute(
    table: Table, teacher: predict.Predictor, clips: ClipSource, config: Config, folder: Path, world: World
) -> None:
    """Fills in the missing logits, `CHUNK` videos at a time; rank 0 writes the file after each."""
    batch_size = config.evaluate.batch_size
    teacher.model.to(world.device)
    missing = (~table.done).nonzero().flatten().tolist()
    order = EvaluationOrder(len(clips), batch_size)
    workers, pin = config.loader.workers or 0, world.device.type == "cuda"
    loader = Loader(clips, order, workers=workers, timeout=config.loader.timeout, pin=pin)
    with counting("logits of the teacher", active=world.first) as progress:
        for first in range(0, len(missing), CHUNK):
            order.indices = missing[first : first + CHUNK][world.rank :: world.size]
            rows: dict[int, Tensor] = {}
            for batch in loader:
                if batch.valid.any():
                    readable = batch if batch.valid.all() else only(batch, batch.valid)
                    main = teacher.stage.variants[0]
                    average = config.protocol.average
                    output = answer(teacher.stage, readable, world.device, (main,), average, batch_size)[main]
                    logits = output.logits.float().cpu()
                    rows.update(zip(readable.index.tolist(), logits, strict=True))
            for share in world.gather(rows):
                for index, row in share.items():
                    table.logits[index] = row
            table.done[missing[first : first + CHUNK]] = True
            if world.first:
                table.write(folder)
            progress(min(first + CHUNK, len(missing)), len(missing))


def _config_of(config: Config, teacher: Config, data: build.Data) -> Config:
    """Returns the teacher's configuration with the videos of the student."""
    if teacher.dataset.modality != config.dataset.modality:
        raise UserError(
            f"the teacher sees dataset.modality={teacher.dataset.modality} and this run {config.dataset.modality}; "
            f"choose a teacher that was trained on the same kind of frames"
        )
    dataset = replace(config.dataset, cache_megabytes=0)
    if isinstance(data.train, GlyphClips):  # frame size and number of frames define the synthetic videos themselves
        if teacher.dataset.frame_size != dataset.frame_size:
            raise UserError(
                f"the teacher saw synthetic videos of {teacher.dataset.frame_size} pixels: set "
                f"dataset.frame_size={teacher.dataset.frame_size}, or choose another teacher"
            )
        dataset = replace(dataset, frames=data.train.videos.frames)
    else:
        dataset = replace(dataset, **{key: getattr(teacher.dataset, key) for key in _VIEW})
    return replace(
        teacher,
        dataset=dataset,
        mode="train",
        loader=config.loader,
        evaluate=config.evaluate,
        devices=config.devices,
        seed=config.seed,
    )


def _check_classes(path: Path, theirs: list[str], ours: list[str]) -> None:
    unnamed = theirs == [str(number) for number in range(len(theirs))]
    if len(theirs) != len(ours) or not (unnamed or theirs == ours):
        place = next((n for n, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
        which = "" if place is None else f"; class {place} is {theirs[place]!r} there and {ours[place]!r} here"
        raise UserError(
            f"teacher {path} has other classes: {len(theirs)} there and {len(ours)} here{which}; choose a teacher that "
            f"was trained on these classes"
        )


def _read(path: Path, run: str, shape: tuple[int, int]) -> Table | None:
    """Reads the table in a file; None if there is none, or if it is damaged or belongs to another run."""
    try:
        table = Table(**torch.load(path, map_location="cpu", weights_only=True))
        sound = table.run == run and table.logits.shape == shape and table.done.shape == shape[:1]
        sound = sound and table.logits.is_floating_point() and table.done.dtype == torch.bool
        return table if sound and isinstance(table.teacher, str) else None
    except FileNotFoundError:
        return None
    except Exception as error:  # torch.load raises errors of many types
        log.warning("%s is damaged (%s); it is computed again", path, type(error).__name__)
        return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
