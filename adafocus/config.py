"""The configuration: its cross-checks, and its way into and out of a run folder.

Everything that can be wrong is found here, before torch is imported and before a device is touched. Options are words
or numbers in `conf/`; schema.py gives them types.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adafocus.core.errors import UserError
from adafocus.schema import Config, DatasetConfig, ScheduleConfig

MODES = ("train", "evaluate", "early_exit", "cost")
#: The stages of method=adafocus_v1 in their order; `all` runs them in a row.
V1_STAGES = ("glance", "focus", "1", "2", "3")
DEVICES = ("auto", "cpu", "cuda")
#: What may change between two starts of the same run: none of it changes a number of the result (but for rounding).
RUNTIME = ("mode", "early_exit", "name", "device", "devices", "inline", "loader", "output", "checkpoint", "published")


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


def stages(config: Config) -> tuple[str, ...]:
    """The stages that a run goes through."""
    return V1_STAGES if config.stage.name == "all" else (config.stage.name,)


def for_stage(config: Config, name: str) -> Config:
    """The configuration of one stage: its part of the recipe, and its name."""
    schedule, defaults = config.schedule, asdict(ScheduleConfig())
    typed = {key: value for key, value in asdict(schedule).items() if value != defaults[key]}
    try:
        node = OmegaConf.merge(OmegaConf.structured(ScheduleConfig), schedule.stages.get(name, {}), typed)
        merged = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: schedule.stages.{name}: {' '.join(str(error).split())}") from error
    return replace(config, schedule=merged, stage=replace(config.stage, name=name))


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
    for name in stages(config):
        _check_schedule(for_stage(config, name))


def _check_words(config: Config) -> None:
    _one_of("mode", config.mode, MODES)
    _one_of("device", config.device, DEVICES)
    _one_of("precision", config.precision, ("auto", "fp32", "bf16", "fp16"))
    _one_of("schedule.precision", config.schedule.precision, ("fp32", "bf16", "fp16"))
    _one_of("dataset.source", config.dataset.source, ("files", "glyphs"))
    _one_of("dataset.metric", config.dataset.metric, ("top1", "map"))
    _one_of("dataset.reader", config.dataset.reader, ("auto", "decord", "pyav", "torchcodec"))
    _one_of("dataset.short_videos", config.dataset.short_videos, ("repeat_last", "first_frame", "spread"))
    _one_of("dataset.modality", config.dataset.modality, ("rgb", "flow"))
    if config.protocol.train is not None:
        _one_of("protocol.train", config.protocol.train, ("uniform", "fractional", "dense"))
    _one_of("protocol.average", config.protocol.average, ("logits", "probabilities"))
    _one_of("dataset.fit", config.dataset.fit, ("crop", "stretch"))
    _one_of("dataset.task", config.dataset.task, ("where", "when", "motion"))
    _one_of("method.where", config.method.where, ("learned", "random", "center"))
    _one_of("method.when", config.method.when, ("learned", "spread"))
    _one_of("method.order", config.method.order, ("coarse_to_fine", "temporal"))
    _one_of("backbone.glance_resize", config.backbone.glance_resize, ("aligned", "area"))
    _one_of("backbone.shift", config.backbone.shift, ("none", "bidirectional", "online"))
    _one_of("backbone.shift_place", config.backbone.shift_place, ("blockres", "block", "branch"))
    _one_of("schedule.param_groups", config.schedule.param_groups, ("single", "tsm", "mmaction2"))
    allowed = (*V1_STAGES, "all") if config.method.name == "adafocus_v1" else ("joint",)
    if config.stage.name not in allowed:
        raise UserError(
            f"stage={config.stage.name} does not exist for method={config.method.name}; choose one of {', '.join(allowed)}"
        )
    _one_of("policy.reward", config.policy.reward, ("random", "padding", "prev", "conf"))
    _one_of("schedule.optimizer", config.schedule.optimizer, ("sgd", "adamw"))
    _one_of("schedule.lr_schedule", config.schedule.lr_schedule, ("cosine", "step", "constant"))
    _one_of("schedule.lr_scaling", config.schedule.lr_scaling, ("linear", "none"))
    _one_of("schedule.select", config.schedule.select, ("last", "best"))
    if config.dataset.source == "files" and not config.dataset.root and config.mode != "cost":
        raise UserError(f"dataset={config.dataset.name} needs its files: set dataset.root=FOLDER")
    if config.mode in ("evaluate", "early_exit") and not config.checkpoint:
        raise UserError(f"mode={config.mode} needs checkpoint=RUN_FOLDER or checkpoint=FILE")
    if config.mode == "train" and config.checkpoint:
        raise UserError(
            "checkpoint= goes with mode=evaluate; training continues by itself in its run folder, and starts from another "
            "run or file with init.from="
        )
    for criterion in config.early_exit.criteria:
        _one_of("early_exit.criteria", criterion, ("confidence", "entropy"))
    if not config.early_exit.criteria:
        raise UserError("early_exit.criteria is empty; choose confidence, entropy or both")
    if unknown := sorted(set(config.init) - {"from", "glance", "focus"}):
        raise UserError(f"init.{unknown[0]} is not a key of the configuration; init has from, glance and focus")
    if config.mode == "train" and config.schedule.starts_from and not config.init.get("from"):
        raise UserError(
            f"this recipe starts from {config.schedule.starts_from}: set init.from=RUN_OR_FILE, or choose another schedule"
        )
    if config.schedule.partial_norm and config.schedule.freeze_norm:
        raise UserError("schedule.partial_norm and schedule.freeze_norm exclude each other")


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
            "patch.smallest": config.patch.smallest,
            "dataset.visible": dataset.visible,
            "dataset.frames": dataset.frames,
            "dataset.tints": dataset.tints,
            "policy.temperature": config.policy.temperature,
            "backbone.spatial_hidden": config.backbone.spatial_hidden,
            "backbone.temporal_hidden": config.backbone.temporal_hidden,
            "schedule.lr": schedule.lr,
            "schedule.epochs": schedule.epochs,
            "schedule.batch_size": schedule.batch_size,
            "schedule.base_batch_size": schedule.base_batch_size,
            "schedule.accumulation_steps": schedule.accumulation_steps,
            "schedule.clip_grad_norm": schedule.clip_grad_norm,
            "evaluate.batch_size": config.evaluate.batch_size,
            "early_exit.runs": config.early_exit.runs,
            "early_exit.train_videos": config.early_exit.train_videos,
            **{f"early_exit.budgets: {q:g}": q for q in config.early_exit.budgets},
            "schedule.evaluate_every": schedule.evaluate_every,
            "output.log_every": config.output.log_every,
            "dataset.limit": dataset.limit,
            "dataset.train_videos": dataset.train_videos,
            "dataset.val_videos": dataset.val_videos,
            "dataset.glyph_size": dataset.glyph_size,
            "dataset.classes": dataset.classes,
            "dataset.decode_short_side": dataset.decode_short_side,
            "dataset.short_side": dataset.short_side,
            "dataset.snippet": dataset.snippet,
            "policy.epochs": config.policy.epochs,
            "policy.minibatches": config.policy.minibatches,
            "policy.clip": config.policy.clip,
            "policy.deviation": config.policy.deviation,
            "dataset.count_divisor": dataset.count_divisor,
            "protocol.window": config.protocol.window,
            "protocol.segments": config.protocol.segments,
            "protocol.short_side": config.protocol.short_side,
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
    if config.early_exit.chunk < 0:
        raise UserError(f"early_exit.chunk={config.early_exit.chunk} must be at least 0")
    if config.loader.workers < 0:
        raise UserError(f"loader.workers={config.loader.workers} must be at least 0")
    if not 0 <= dataset.flip <= 1:
        raise UserError(f"dataset.flip={dataset.flip} is a probability: between 0 and 1")
    if config.seed < 0:
        raise UserError(f"seed={config.seed} must be at least 0")


def _check_clips(config: Config) -> None:
    dataset, segments = config.dataset, config.segments
    if config.patch.size > dataset.frame_size and config.method.name != "recognizer":
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
    plain, ours = config.backbone.shift == "none", config.method.name != "recognizer"
    if ours and config.method.name != "uni_adafocus" and plain and segments.focus not in (None, segments.glance):
        raise UserError(
            f"method={config.method.name} on plain backbones focuses on the frames it glances at: segments.focus={segments.focus} "
            f"must be {segments.glance} (or segments={segments.glance})"
        )
    if config.method.name == "uni_adafocus":
        _check_choices(config)
    if config.mode == "early_exit" and not (
        config.method.name == "uni_adafocus" or (plain and config.method.name == "adafocus_v2")
    ):
        raise UserError(
            f"mode=early_exit needs a network that answers step by step: method=uni_adafocus, or method=adafocus_v2 on plain "
            f"backbones, not method={config.method.name} here"
        )
    backbone = config.backbone
    if ours and (backbone.adaptive or backbone.non_local or backbone.temporal_pool):
        raise UserError(
            f"method={config.method.name} knows the temporal shift only: choose another backbone, or method=recognizer for this one"
        )
    if not {len(dataset.mean), len(dataset.std)} <= {1, 3} or len(dataset.mean) != len(dataset.std):
        raise UserError("dataset.mean and dataset.std need three numbers, for R, G, B, or one for all channels")
    if dataset.modality == "flow" and (dataset.frame_template is None or config.method.name != "recognizer"):
        raise UserError("dataset.modality=flow needs frame folders (dataset.frame_template) and method=recognizer")
    temporal = backbone.shift != "none" or backbone.adaptive or backbone.non_local or backbone.temporal_pool
    if config.protocol.segments not in (None, segments.glance) and (temporal or config.method.name != "recognizer"):
        raise UserError(
            f"protocol={config.protocol.name} tests with {config.protocol.segments} frames, which only TSN can: a network "
            f"that joins frames works on the number it was built for (segments={segments.glance})"
        )
    _check_division(dataset)
    if dataset.source == "glyphs" and dataset.flip:
        raise UserError("dataset=glyphs draws its own variety: dataset.flip must be 0")


def _check_division(dataset: DatasetConfig) -> None:
    """Hold-outs of own videos."""
    if dataset.source == "glyphs":
        typed = {"group": dataset.group, "folds": dataset.folds, "fold": dataset.fold, "test_list": dataset.test_list}
        if key := next((key for key, value in typed.items() if value is not None), None):
            raise UserError(f"dataset.{key} is about files; dataset=glyphs draws its videos")
    if dataset.folds is None and dataset.fold is not None:
        raise UserError(f"dataset.fold={dataset.fold} needs the number of folds: set dataset.folds=5, for example")
    if dataset.folds is None:
        return
    if dataset.folds < 2:
        raise UserError(f"dataset.folds={dataset.folds} must be at least 2")
    every = ",".join(map(str, range(dataset.folds)))
    if dataset.fold is None:
        raise UserError(
            f"dataset.folds={dataset.folds}: say which one is for validation, or all: -m dataset.fold={every}"
        )
    if not 0 <= dataset.fold < dataset.folds:
        raise UserError(f"dataset.fold={dataset.fold} does not exist; of dataset.folds={dataset.folds} choose {every}")


def _check_choices(config: Config) -> None:
    """What Uni-AdaFocus chooses from."""
    segments, patch = config.segments, config.patch
    plain = config.backbone.shift == "none"
    focus, pool = segments.chosen(plain)
    if pool < focus:
        raise UserError(
            f"segments.pool={pool} candidates are fewer than the {focus} frames to choose; raise segments.pool"
        )
    if plain and pool % segments.glance:
        raise UserError(
            f"segments.pool={pool} candidates must be a multiple of segments.glance={segments.glance}, which are among them"
        )
    smallest = patch.smallest or 3 * config.dataset.frame_size / 7
    if patch.size < smallest:
        raise UserError(
            f"patch.size={patch.size} is below the smallest rectangle of {smallest:g} pixels; choose a larger patch or a smaller "
            f"patch.smallest"
        )
    if config.dataset.separate_crops and plain:
        raise UserError(
            "dataset.separate_crops is for networks on TSM: here the glance frames are among the candidates"
        )


def _check_schedule(config: Config) -> None:
    schedule = config.schedule
    for key in ("lr", "epochs", "batch_size", "base_batch_size"):
        if (value := getattr(schedule, key)) is None:
            raise UserError(f"schedule.{key} is not set for stage={config.stage.name}; choose a schedule that has it")
        _positive({f"schedule.{key}": value})
    if schedule.accumulation_steps > 1 and config.policy.epochs * config.policy.minibatches > 1:
        raise UserError(
            "policy.epochs and policy.minibatches take several steps a batch: schedule.accumulation_steps must be 1"
        )
    share = config.devices * schedule.accumulation_steps
    if schedule.batch_size % share:
        raise UserError(
            f"schedule.batch_size={schedule.batch_size} cannot be shared by devices={config.devices} in "
            f"schedule.accumulation_steps={schedule.accumulation_steps} parts; make it a multiple of {share}"
        )
    uni = config.method.name == "uni_adafocus"
    known = {"glance", "focus", "classifier", *(("temporal", "spatial") if uni else ("policy",))}
    if unknown := sorted(set(schedule.lr_mults) - known):
        raise UserError(f"schedule.lr_mults: unknown parts {unknown}; known are {sorted(known)}")
    needed = known if config.backbone.shift == "none" else known - {"classifier"}
    if (uni or config.method.name == "adafocus_v2") and (missing := sorted(needed - set(schedule.lr_mults))):
        raise UserError(f"schedule.lr_mults: method={config.method.name} needs a multiple for each of {missing}")
