"""The configuration: its schema, its cross-checks, and its way into and out of a run folder.

Everything that can be wrong is found here, before torch is imported and before a device is touched. Options are words
or numbers in `conf/`; this file gives them types.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adafocus.errors import UserError

MODES = ("train", "evaluate", "cost")
DEVICES = ("auto", "cpu", "cuda")
#: What may change between two starts of the same run: none of it changes a number of the result (but for rounding).
RUNTIME = ("mode", "name", "device", "devices", "inline", "loader", "output", "checkpoint", "published")


@dataclass
class DatasetConfig:
    """Where videos and lists are, and how a clip is made of them."""

    name: str = MISSING
    source: str = "files"  # files | glyphs
    metric: str = "top1"  # top1 | map: which score counts
    # files
    root: str | None = None
    videos: str = "."  # folder of the videos, below root
    train_list: str | None = None  # below root; None: train.txt, or class folders
    val_list: str | None = None
    class_file: str | None = None  # below root; None: classes.txt, or the names of the class folders
    separator: str = " "  # of list fields
    frame_template: str | None = None  # file names of frame folders; None: the records are video files
    classes: int | None = None  # expected number of classes; None: what is found
    expected_train: int | None = None  # expected number of videos
    expected_val: int | None = None
    allow_partial: bool = False  # go on when the counts differ from the expected ones
    min_frames: int = 1  # list rows with fewer frames are dropped (the seeds: 3)
    limit: int | None = None  # use only so many videos of each split, evenly spread (for a quick look)
    hold_out: float = 0.2  # share kept for evaluation of class folders that come without a split
    bad_list: str | None = None  # bad.txt of `adafocus prepare check`
    max_bad_fraction: float = 0.05  # more unreadable training videos than this share end the run
    reader: str = "auto"  # auto | decord | pyav | torchcodec
    decode_short_side: int | None = None  # decode at this short side; None: as stored
    video_timeout: float = 60.0  # seconds one video may take
    cache_megabytes: int = (
        0  # memory for decoded training videos, shared by the loader's processes; as much again for evaluation
    )
    # clips
    frame_size: int = 224
    glance_reduction: int = 1  # a view reduced by this still shows where to look; small backbones glance at that
    fit: str = "crop"  # crop | stretch: how a frame becomes a square
    short_side: int | None = None  # evaluation: resize to this before the centre crop; None: frame_size * 256 // 224
    short_videos: str = "repeat_last"  # repeat_last | first_frame
    crop_scales: list[float] = field(default_factory=lambda: [1.0, 0.875, 0.75, 0.66])
    flip: float = 0.5
    flip_pairs: list[list[str]] = field(default_factory=list)  # class names that a mirror exchanges
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    # glyphs
    task: str = "where"  # where | when | motion
    glyph_size: int = 16
    train_videos: int = 4096
    val_videos: int = 512


@dataclass
class BackboneConfig:
    glance: str = MISSING
    focus: str = MISSING
    weights: str = "imagenet"  # imagenet | none | FILE, of the focus network
    glance_weights: str | None = None  # None: as weights
    glance_size: int | None = None  # side of the frames that the glance sees; None: frame_size
    glance_resize: str = "aligned"  # aligned (the released code's) | area (antialiased)
    glance_channels: list[int] = field(default_factory=list)  # of the tiny nets; others do not read them
    focus_channels: list[int] = field(default_factory=list)
    policy_hidden: int = 2048  # width of the policy on top
    classifier_width: int = 4096  # and of the classifier


@dataclass
class PatchConfig:
    size: int = MISSING


@dataclass
class SegmentsConfig:
    glance: int = MISSING  # frames that the glance network sees
    focus: int | None = None  # frames that the focus network sees; None: the same ones
    pool: int | None = None  # candidates that focus frames are chosen from


@dataclass
class MethodConfig:
    name: str = MISSING  # adafocus_v2 | recogniser
    where: str = "learned"  # learned | random | centre: who chooses the patch, in training and evaluation
    order: str = "coarse_to_fine"  # coarse_to_fine | temporal


@dataclass
class StageConfig:
    name: str = MISSING  # joint


@dataclass
class ScheduleConfig:
    """The recipe. Rates are for batches of base_batch clips."""

    optimiser: str = "sgd"  # sgd | adamw
    rate: float = MISSING
    rates: dict[str, float] = field(default_factory=dict)  # multiples for parts of the network
    momentum: float = 0.9
    weight_decay: float = 1e-4
    shape: str = "cosine"  # cosine | step | constant
    per_epoch: bool = True  # the rate changes between epochs only
    horizon: int | None = None  # epochs to the cosine's zero
    milestones: list[int] = field(default_factory=list)
    decay: float = 0.1
    warmup_epochs: float = 0.0
    epochs: int = MISSING
    batch: int = MISSING  # clips of an optimiser step, over all devices and accumulation steps
    base_batch: int = MISSING
    scaling: str = "linear"  # linear | none
    accumulate: int = 1
    clip: float | None = None
    dropout: float = 0.0  # of the classifier
    head_dropout: float = 0.0  # of the auxiliary heads; of the recogniser's only head
    freeze_norm: bool = False
    evaluate_every: int = 1  # epochs: after epoch 1, 1 + n, ...
    evaluate_last: int = 1  # and after each of the last so many
    select: str = (
        "last"  # last | best: whose weights the summary is about (the seeds: best on the evaluation set itself)
    )


@dataclass
class EvaluateConfig:
    batch: int = 32
    controls: bool = True  # answer also for random and centred patches and for the glance alone
    examples: int = 6  # clips in the picture


@dataclass
class LoaderConfig:
    workers: int = 2
    timeout: float = 300.0  # seconds without a batch before the run ends with a message


@dataclass
class OutputConfig:
    log_every: int = 10  # steps
    save_seconds: float = 300.0
    tensorboard: bool = True


@dataclass
class PublishedConfig:
    """What a paper or README prints for this row."""

    score: float | None = None  # percent, the metric of the dataset
    gflops: float | None = None  # multiply-adds a video, in units of 1e9, as printed
    source: str | None = None


@dataclass
class Config:
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    published: PublishedConfig = field(default_factory=PublishedConfig)
    mode: str = "train"
    name: str | None = None  # of the run folder; None: what differs from the defaults
    checkpoint: str | None = None  # evaluate: a run folder or a checkpoint file
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "fp32"  # fp32 | bf16 | fp16
    channels_last: bool = False
    compile: bool = False
    inline: bool = False  # train in this process, for a debugger


def from_node(node: Any) -> Config:
    """A composed Hydra node as a checked, typed configuration."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), node))
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {' '.join(str(error).split())}") from error
    check(config)
    return config


def from_dict(values: dict[str, Any]) -> Config:
    return from_node(OmegaConf.create(values))


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested data, as it goes into config.json and checkpoints."""
    return asdict(config)


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that makes two runs the same run."""
    return {key: value for key, value in values.items() if key not in RUNTIME}


def stored_identity(values: dict[str, Any] | None) -> dict[str, Any] | None:
    """The identity of a configuration that a run folder holds; keys that are newer than the run have their defaults."""
    if values is None:
        return None
    try:
        return identity(to_dict(from_dict(values)))
    except UserError:  # it is of a version with other keys: then it is another configuration
        return identity(values)


def read(folder: Path) -> Config:
    """The configuration of a run folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    return from_dict(json.loads(path.read_text(encoding="utf-8")))


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{key}={value!r} is unknown; choose one of {', '.join(allowed)}")


def _positive(values: dict[str, float | None]) -> None:
    for key, value in values.items():
        if value is not None and value <= 0:
            raise UserError(f"{key}={value} must be greater than 0")


def _fraction(values: dict[str, float]) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{key}={value} must be at least 0 and below 1")


def check(config: Config) -> None:
    """All that can be said about a configuration without data, weights or devices.

    Raises:
        UserError: one line with the key and what to do.
    """
    _check_words(config)
    _check_numbers(config)
    _check_clips(config)
    _check_schedule(config)


def _check_words(config: Config) -> None:
    _one_of("mode", config.mode, MODES)
    _one_of("device", config.device, DEVICES)
    _one_of("precision", config.precision, ("fp32", "bf16", "fp16"))
    _one_of("dataset.source", config.dataset.source, ("files", "glyphs"))
    _one_of("dataset.metric", config.dataset.metric, ("top1", "map"))
    _one_of("dataset.reader", config.dataset.reader, ("auto", "decord", "pyav", "torchcodec"))
    _one_of("dataset.short_videos", config.dataset.short_videos, ("repeat_last", "first_frame"))
    _one_of("dataset.fit", config.dataset.fit, ("crop", "stretch"))
    _one_of("dataset.task", config.dataset.task, ("where", "when", "motion"))
    _one_of("method.where", config.method.where, ("learned", "random", "centre"))
    _one_of("method.order", config.method.order, ("coarse_to_fine", "temporal"))
    _one_of("backbone.glance_resize", config.backbone.glance_resize, ("aligned", "area"))
    _one_of("schedule.optimiser", config.schedule.optimiser, ("sgd", "adamw"))
    _one_of("schedule.shape", config.schedule.shape, ("cosine", "step", "constant"))
    _one_of("schedule.scaling", config.schedule.scaling, ("linear", "none"))
    _one_of("schedule.select", config.schedule.select, ("last", "best"))
    if config.dataset.source == "files" and not config.dataset.root and config.mode != "cost":
        raise UserError(f"dataset={config.dataset.name} needs its files: set dataset.root=FOLDER")
    if config.mode == "evaluate" and not config.checkpoint:
        raise UserError("mode=evaluate needs checkpoint=RUN_FOLDER or checkpoint=FILE")
    if config.mode == "train" and config.checkpoint:
        raise UserError("checkpoint= goes with mode=evaluate; training continues by itself in its run folder")


def _check_numbers(config: Config) -> None:
    dataset, schedule = config.dataset, config.schedule
    _positive(
        {
            "dataset.frame_size": dataset.frame_size,
            "dataset.glance_reduction": dataset.glance_reduction,
            "patch.size": config.patch.size,
            "devices": config.devices,
            "segments.glance": config.segments.glance,
            "segments.focus": config.segments.focus,
            "segments.pool": config.segments.pool,
            "schedule.rate": schedule.rate,
            "schedule.epochs": schedule.epochs,
            "schedule.batch": schedule.batch,
            "schedule.base_batch": schedule.base_batch,
            "schedule.accumulate": schedule.accumulate,
            "schedule.clip": schedule.clip,
            "evaluate.batch": config.evaluate.batch,
            "schedule.evaluate_every": schedule.evaluate_every,
            "output.log_every": config.output.log_every,
            "dataset.limit": dataset.limit,
            "dataset.train_videos": dataset.train_videos,
            "dataset.val_videos": dataset.val_videos,
            "dataset.glyph_size": dataset.glyph_size,
            "dataset.classes": dataset.classes,
            "dataset.decode_short_side": dataset.decode_short_side,
            "dataset.short_side": dataset.short_side,
            "backbone.glance_size": config.backbone.glance_size,
            "loader.timeout": config.loader.timeout,
            "backbone.policy_hidden": config.backbone.policy_hidden,
            "backbone.classifier_width": config.backbone.classifier_width,
        }
    )
    _fraction(
        {
            "schedule.dropout": schedule.dropout,
            "schedule.head_dropout": schedule.head_dropout,
            "dataset.max_bad_fraction": dataset.max_bad_fraction,
            "dataset.hold_out": dataset.hold_out,
        }
    )
    if config.loader.workers < 0:
        raise UserError(f"loader.workers={config.loader.workers} must be at least 0")
    if not 0 <= dataset.flip <= 1:
        raise UserError(f"dataset.flip={dataset.flip} is a probability: between 0 and 1")
    if config.seed < 0:
        raise UserError(f"seed={config.seed} must be at least 0")


def _check_clips(config: Config) -> None:
    dataset, segments = config.dataset, config.segments
    if config.patch.size > dataset.frame_size:
        raise UserError(
            f"patch.size={config.patch.size} is larger than the frame of {dataset.frame_size} pixels; "
            f"choose a smaller patch or raise dataset.frame_size"
        )
    if dataset.short_side is not None and dataset.short_side < dataset.frame_size:
        raise UserError(f"dataset.short_side={dataset.short_side} is below dataset.frame_size={dataset.frame_size}")
    if segments.pool is not None and segments.pool < max(segments.focus or 0, segments.glance):
        raise UserError(
            f"segments.pool={segments.pool} candidates are fewer than the {max(segments.focus or 0, segments.glance)} "
            f"frames to choose from them; raise segments.pool"
        )
    if config.method.name == "adafocus_v2" and segments.focus not in (None, segments.glance):
        raise UserError(
            f"method=adafocus_v2 on plain backbones focuses on the frames it glances at: segments.focus={segments.focus} "
            f"must be {segments.glance} (or segments={segments.glance})"
        )
    if len(dataset.mean) != 3 or len(dataset.std) != 3:
        raise UserError("dataset.mean and dataset.std need three numbers, for R, G, B")
    if dataset.source == "glyphs" and dataset.flip:
        raise UserError("dataset=glyphs draws its own variety: dataset.flip must be 0")


def _check_schedule(config: Config) -> None:
    schedule = config.schedule
    share = config.devices * schedule.accumulate
    if schedule.batch % share:
        raise UserError(
            f"schedule.batch={schedule.batch} cannot be shared by devices={config.devices} in "
            f"schedule.accumulate={schedule.accumulate} parts; make it a multiple of {share}"
        )
    known = {"policy", "glance", "focus", "classifier"}
    if unknown := sorted(set(schedule.rates) - known):
        raise UserError(f"schedule.rates: unknown parts {unknown}; known are {sorted(known)}")
    if config.method.name == "adafocus_v2" and (missing := sorted(known - set(schedule.rates))):
        raise UserError(f"schedule.rates: method=adafocus_v2 needs a multiple for each of {missing}")
