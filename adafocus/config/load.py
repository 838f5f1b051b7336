"""The configuration: its cross-checks, and its way into and out of a run folder.

Everything that can be wrong is found here, before torch is imported and before a device is touched. Options are words
or numbers in `conf/`; schema.py gives them types and domains, which domains.py checks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from adafocus.config import domains, renamed
from adafocus.config.schema import ABOUT, RUNTIME, Config, DatasetConfig, ScheduleConfig
from adafocus.core import choices, plugins
from adafocus.core.errors import UserError, printable
from adafocus.methods import method_of

_MOST_VALUES = 10_000  # of a stored configuration; ours have some 200


def from_node(node: Any, said: Collection[str] = ()) -> Config:
    """A composed Hydra node as a checked, typed configuration.

    Args:
        said: keys that were typed, or that a debug or experiment file sets. They win over the recipes of single stages.
    """
    config = _typed(OmegaConf.to_container(node, resolve=True))
    for name, table in config.schedule.stages.items():
        for key in said:
            _write(asdict(config.schedule), table, key.split("."), said, name)
    check(config)
    check_start(config)
    return config


def _write(schedule: dict[str, Any], table: dict[str, Any], path: list[str], said: Collection[str], stage: str) -> None:
    """Writes a key of all stages into the recipe of one, unless something else was said about that stage itself."""
    if path[0] != "schedule" or len(path) < 2 or path[1] not in table:
        return
    if any(key.startswith(f"schedule.stages.{stage}.{path[1]}") for key in said):
        return
    value = schedule[path[1]]
    if isinstance(value, dict):
        table[path[1]] = {**table[path[1]], **({path[2]: value.get(path[2])} if len(path) > 2 else value)}
    else:
        table[path[1]] = value


def from_dict(values: dict[str, Any]) -> Config:
    """A stored configuration, checked like a typed one. One of the version before this is translated.

    Raises:
        UserError: something else than a configuration, an unknown key, or a value that is not allowed.
    """
    if not isinstance(values, dict):
        raise UserError("configuration: a stored configuration must be a table of sections")
    plain(values, "a stored configuration")
    # Runs of version 0.1 carry what a paper prints; it says nothing of the run.
    values = {key: value for key, value in values.items() if key != "published"}
    values = renamed.with_loggers(values)
    older = renamed.is_older(values)
    config = _typed(renamed.translated(values) if older else values)
    if older:
        _read_as_before(config)
    check(config)
    return config


def plain(values: Any, where: str) -> Any:
    """Stored values, which must be plain: no interpolations, which would read the environment or call resolvers.

    Raises:
        UserError: a text with `${` or control codes, something other than numbers, texts, lists and dictionaries, or more
            of them than any configuration has (a file can hold lists that contain themselves).
    """
    todo, seen = [("", values)], 0
    while todo:
        (key, value), seen = todo.pop(), seen + 1
        if isinstance(value, dict):
            for name, inner in value.items():
                todo += [(key, name), (f"{key}.{name}" if key else f"{name}", inner)]
        elif isinstance(value, (list, tuple)):
            todo += [(key, inner) for inner in value]
        elif isinstance(value, str):
            if "${" in value or value == "???" or printable(value) != value:
                raise UserError(f"{where}: {key}={value[:80]!r} is no plain value; it is not read")
        elif not isinstance(value, (bool, int, float, type(None))):
            raise UserError(f"{where}: {key} holds a {type(value).__name__}, which is no plain value; it is not read")
        if seen + len(todo) > _MOST_VALUES:
            raise UserError(f"{where} holds more than {_MOST_VALUES} values; it is not read")
    return values


def _typed(values: Any) -> Config:
    for key, value in _texts(values):
        if "${" in value:
            raise UserError(f"{key}={value!r} holds '${{', which stored and typed values may not")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(values)))
    except ConfigKeyError as error:
        raise UserError(renamed.unknown_key(str(error.full_key or error.key), domains.leaves(Config))) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error)) from error
    plugins.require(config.plugins, "this configuration")
    domains.check(config)
    backbone, (policy, classifier) = config.backbone, method_of(config).widths
    backbone.policy_hidden, backbone.classifier_width = (
        own if value is None else value
        for value, own in ((backbone.policy_hidden, policy), (backbone.classifier_width, classifier))
    )
    return config


def _read_as_before(config: Config) -> None:
    """What the version before this one made of the same values: it is written out, so that it stays so.

    A key of the schedule that differed from its default won over the recipes of the stages; policies on TSM and those of
    AdaFocus V1 were never wider than 1024, whatever the key said; and parts that a method lacks had a width as well.
    """
    defaults = asdict(ScheduleConfig())
    for table in config.schedule.stages.values():
        for key in table:
            if (value := getattr(config.schedule, key, None)) != defaults.get(key):
                table[key] = {**table[key], **value} if isinstance(value, dict) else value
    for key, own, default in zip(
        ("policy_hidden", "classifier_width"), method_of(config).widths, (2048, 4096), strict=True
    ):
        value = getattr(config.backbone, key)
        if own is None:
            setattr(config.backbone, key, None if value == default else value)
        elif own == 1024:
            setattr(config.backbone, key, min(value, 1024))


def _texts(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested plain data, names included, and where it stands."""
    if isinstance(values, str):
        yield prefix, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _texts(str(key), prefix)
            yield from _texts(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value, prefix)


def _one_line(error: Exception) -> str:
    where = getattr(error, "full_key", None)
    return f"configuration: {f'{where}: ' if where else ''}{str(error).strip().splitlines()[0].strip()}"


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested data, as it goes into config.json and checkpoints."""
    return asdict(config)


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that makes two runs the same run."""
    return {key: value for key, value in values.items() if key not in (*RUNTIME, *ABOUT)}


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
    return method_of(config).stages if config.stage.name == "all" else (config.stage.name,)


def for_stage(config: Config, name: str) -> Config:
    """The configuration of one stage: the schedule with that stage's part of the recipe over it, and its name."""
    table = config.schedule.stages.get(name, {})
    try:
        node = OmegaConf.merge(OmegaConf.structured(ScheduleConfig), asdict(config.schedule), table)
        merged = OmegaConf.to_object(node)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        line = renamed.unknown_key(f"schedule.{key}", domains.leaves(Config))
        raise UserError(f"schedule.stages.{name}.{key}: {line}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"schedule.stages.{name}: {_one_line(error)}") from error
    domains.check(merged, f"schedule.stages.{name}." if table else "schedule.")
    return replace(config, schedule=merged, stage=replace(config.stage, name=name))


def read(folder: Path) -> Config:
    """The configuration of a run folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error


def check(config: Config) -> None:
    """All that can be said about a configuration without data, weights or devices, beside the domains of its types.

    Raises:
        UserError: one line with the key and what to do.
    """
    _check_mode(config)
    _check_clips(config)
    for name in stages(config):
        _check_schedule(for_stage(config, name))


def check_start(config: Config) -> None:
    """Weights that training must start from.

    Raises:
        UserError: they are not named.
    """
    if config.mode != "train" or config.init.get("from"):
        return
    if config.schedule.starts_from:
        raise UserError(
            f"this recipe starts from {config.schedule.starts_from}: set init.from=RUN_OR_FILE, or choose another schedule"
        )
    stage, parts = config.stage.name, [part for part in ("glance", "focus") if not config.init.get(part)]
    if stage == "1" and parts:
        raise UserError(
            "stage=1 starts from trained glance and focus networks: set init.from=RUN_OR_FILE, or init.glance=FILE and "
            "init.focus=FILE (init.from=none starts from random ones)"
        )
    if stage in ("2", "3"):
        raise UserError(
            f"stage={stage} starts from the networks of stage {int(stage) - 1}: set init.from=RUN_OR_FILE "
            f"(init.from=none starts from random ones)"
        )


def _check_mode(config: Config) -> None:
    method = method_of(config)
    allowed = (*method.stages, "all") if len(method.stages) > 1 else method.stages
    if config.stage.name not in allowed:
        raise UserError(
            f"stage={config.stage.name} does not exist for method={method.name}; choose one of {', '.join(allowed)}"
        )
    if config.dataset.source == "files" and not config.dataset.root and config.mode != "cost":
        raise UserError(f"dataset={config.dataset.name} needs its files: set dataset.root=FOLDER")
    if config.mode in ("evaluate", "early_exit") and not config.checkpoint:
        raise UserError(f"mode={config.mode} needs checkpoint=RUN_FOLDER or checkpoint=FILE")
    if config.sync_batchnorm and (config.devices == 1 or config.device == "cpu"):
        raise UserError(
            f"sync_batchnorm=true needs several CUDA devices, but devices={config.devices} and device={config.device}; leave it "
            f"out, or set devices=N"
        )
    if config.sync_batchnorm and config.schedule.partial_norm:
        raise UserError(
            "sync_batchnorm=true has no use with schedule.partial_norm, which freezes BatchNorm; leave one out"
        )
    if config.mode == "train" and config.checkpoint:
        raise UserError(
            "checkpoint= goes with mode=evaluate; training continues by itself in its run folder, and starts from another "
            "run or file with init.from="
        )
    if config.schedule.partial_norm and config.schedule.freeze_norm:
        raise UserError("schedule.partial_norm and schedule.freeze_norm exclude each other")


def _check_clips(config: Config) -> None:
    dataset, segments, method = config.dataset, config.segments, method_of(config)
    if dataset.short_side is not None and dataset.short_side < dataset.frame_size:
        raise UserError(f"dataset.short_side={dataset.short_side} is below dataset.frame_size={dataset.frame_size}")
    if segments.pool is not None and segments.pool < max(segments.focus or 0, segments.glance):
        raise UserError(
            f"segments.pool={segments.pool} candidates are fewer than the {max(segments.focus or 0, segments.glance)} "
            f"frames to choose from them; raise segments.pool"
        )
    method.check()
    if config.mode == "early_exit" and not method.exits_early:
        raise UserError(
            f"mode=early_exit needs a network that answers step by step: method=uni_adafocus, or method=adafocus_v2 on plain "
            f"backbones, not method={method.name} here"
        )
    if not {len(dataset.mean), len(dataset.std)} <= {1, 3} or len(dataset.mean) != len(dataset.std):
        raise UserError("dataset.mean and dataset.std need three numbers, for R, G, B, or one for all channels")
    if dataset.modality == "flow" and (dataset.frame_template is None or not method.reads_flow):
        raise UserError("dataset.modality=flow needs frame folders (dataset.frame_template) and method=recognizer")
    if config.protocol.segments not in (None, segments.glance) and not method.any_number_of_frames:
        raise UserError(
            f"protocol={config.protocol.name} tests with {config.protocol.segments} frames, which only TSN can: a network "
            f"that joins frames works on the number it was built for (segments={segments.glance})"
        )
    _check_division(dataset)
    if dataset.options and dataset.source in choices.SOURCES:
        raise UserError(f"dataset.options are for a data set of a plug-in, not for dataset.source={dataset.source}")
    if dataset.source == "glyphs" and dataset.flip:
        raise UserError("dataset=glyphs draws its own variety: dataset.flip must be 0")


def _check_division(dataset: DatasetConfig) -> None:
    """Hold-outs of own videos."""
    if dataset.folds is None and dataset.fold is not None:
        raise UserError(f"dataset.fold={dataset.fold} needs the number of folds: set dataset.folds=5, for example")
    if dataset.folds is None:
        return
    every = ",".join(map(str, range(dataset.folds)))
    if dataset.fold is None:
        raise UserError(
            f"dataset.folds={dataset.folds}: say which one is for validation, or all: -m dataset.fold={every}"
        )
    if dataset.fold >= dataset.folds:
        raise UserError(f"dataset.fold={dataset.fold} does not exist; of dataset.folds={dataset.folds} choose {every}")


def _check_schedule(config: Config) -> None:
    schedule = config.schedule
    for key in ("lr", "epochs", "batch_size", "base_batch_size"):
        if getattr(schedule, key) is None:
            raise UserError(f"schedule.{key} is not set for stage={config.stage.name}; choose a schedule that has it")
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
    method = method_of(config)
    if unknown := sorted(set(schedule.lr_mults) - set(method.lr_parts)):
        raise UserError(f"schedule.lr_mults: unknown parts {unknown}; known are {sorted(method.lr_parts)}")
    if missing := sorted(set(method.needed_lr_parts) - set(schedule.lr_mults)):
        raise UserError(f"schedule.lr_mults: method={method.name} needs a multiple for each of {missing}")
