"""Conversion of configurations (Hydra node, stored JSON, dataclass), and the checks that involve several keys.

Errors are found here before torch is imported and before a device is used. `schema.py` defines types and domains of
single keys, which `core/domains.py` checks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, make_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from adafocus.config import described, renamed
from adafocus.config.schema import Config, DatasetConfig, ScheduleConfig
from adafocus.core import choices, domains, plugins
from adafocus.core.errors import UserError, printable
from adafocus.methods import method_of
from adafocus.methods.options import Options

Section = TypeVar("Section")
_MOST_VALUES = 10_000  # limit for a stored configuration; a real one has about 200 values


def from_node(node: Any, said: Collection[str] = ()) -> Config:
    """Converts a composed Hydra node to a typed configuration and checks it.

    Args:
        node: the composed node.
        said: keys that are set on the command line or by a debug or experiment file; they take precedence over the
            values in `schedule.stages`.
    """
    config = _typed(described.named(cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))))
    for name, table in config.schedule.stages.items():
        for key in said:
            _write(asdict(config.schedule), table, key.split("."), said, name)
    check(config)
    check_start(config)
    return config


def _write(schedule: dict[str, Any], table: dict[str, Any], path: list[str], said: Collection[str], stage: str) -> None:
    """Writes a key that is set for all stages into the table of one stage, unless it is set for that stage itself."""
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
    """Makes a typed, checked configuration of stored plain data; data stored by version 0.1 are converted.

    Raises:
        UserError: the data are not a configuration, or have an unknown key or a value that is not allowed.
    """
    if not isinstance(values, dict):
        raise UserError("configuration: a stored configuration must be a table of sections")
    plain(values, "a stored configuration")
    # Version 0.1 stored the published results of an experiment with the run; they do not belong to its configuration.
    values = {key: value for key, value in values.items() if key != "published"}
    values = renamed.with_loggers(values)
    older = renamed.is_older(values)
    config = _typed(renamed.translated(values) if older else values)
    if older:
        _read_as_before(config)
    check(config)
    return config


def plain(values: Any, where: str) -> Any:
    """Returns stored values unchanged after checking that they are plain data.

    Interpolations (`${...}`) are refused because they would read environment variables or call resolvers.
    Raises:
        UserError: there is a text with `${` or control codes, a value that is neither number, text, list nor
            dictionary, or more than 10,000 values (a file can hold lists that contain themselves).
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
                raise UserError(f"{where}: {key}={value[:80]!r} must be plain text without '${{' and control codes")
        elif not isinstance(value, (bool, int, float, type(None))):
            raise UserError(
                f"{where}: {key} is a {type(value).__name__}; only numbers, text, lists and dictionaries are allowed"
            )
        if seen + len(todo) > _MOST_VALUES:
            raise UserError(f"{where} holds more than {_MOST_VALUES} values, so it is not a configuration of adafocus")
    return values


def _typed(values: Any) -> Config:
    for key, value in _texts(values):
        if "${" in value:
            raise UserError(f"{key}={value!r}: interpolation with '${{' is not allowed here; give the value itself")
    try:
        config = _object(Config, values)
    except ConfigKeyError as error:
        raise UserError(renamed.unknown_key(str(error.full_key or error.key), domains.leaves(Config))) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error)) from error
    plugins.require(config.plugins, "this configuration")
    domains.check(config)
    _type_own_options(config)
    backbone, (policy, classifier) = config.backbone, method_of(config).widths
    backbone.policy_hidden, backbone.classifier_width = (
        own if value is None else value
        for value, own in ((backbone.policy_hidden, policy), (backbone.classifier_width, classifier))
    )
    _set_normalization(config)
    return config


def _object(schema: type[Section], *values: Any) -> Section:
    """Makes an instance of a dataclass of plain data; later tables replace values of earlier ones.

    Raises:
        OmegaConfBaseException, ValueError: there is an unknown key, or a value of another type.
    """
    return cast(Section, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *values)))


def _set_normalization(config: Config) -> None:
    """Sets mean and std to ImageNet's if they are None, unless a network may have a normalization of its own."""
    backbone, dataset = config.backbone, config.dataset
    networks = (backbone.focus, backbone.glance) if method_of(config).has_glance else (backbone.focus,)
    own = any(name not in choices.BACKBONES for name in networks) and dataset.modality == "rgb"
    if not own or dataset.mean is not None or dataset.std is not None:
        dataset.mean = [0.485, 0.456, 0.406] if dataset.mean is None else dataset.mean
        dataset.std = [0.229, 0.224, 0.225] if dataset.std is None else dataset.std


def _type_own_options(config: Config) -> None:
    """Checks `method.options` like any other section, by the options that the method declares, and adds defaults."""
    own = [kind for kind in method_of(config).options if kind.section == Options.section]
    if not own and not config.method.options:
        return
    types = make_dataclass("MethodOptions", [], bases=tuple(own))
    node = OmegaConf.create({"method": {"options": OmegaConf.structured(types)}})
    try:
        node.merge_with({"method": {"options": config.method.options}})
        typed = cast(Options, OmegaConf.to_object(node.method.options))
    except ConfigKeyError as error:
        known = domains.leaves(types, f"{Options.section}.")
        raise UserError(renamed.unknown_key(str(error.full_key), known)) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error)) from error
    domains.check(typed, f"{Options.section}.")
    config.method.options = asdict(typed)


def _read_as_before(config: Config) -> None:
    """Converts a configuration of version 0.1 so that it has the same effect as in that version.

    In version 0.1 a schedule key that differed from its default took precedence over `schedule.stages`; policies on TSM
    and of AdaFocus V1 were at most 1024 wide, even if the key was larger; widths were also stored for parts that a
    network does not have; AdaFocus V2 on TSM did not read `backbone.glance_size`.
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
    if method_of(config).whole_glance_before:
        config.backbone.glance_size = None


def _texts(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (full key, text) for all texts in nested plain data, dictionary keys included."""
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
    """Converts a configuration to nested plain data, as config.json and checkpoints store it."""
    return asdict(config)


def stages(config: Config) -> tuple[str, ...]:
    """Returns the names of the stages that a run trains, in order."""
    return method_of(config).stages if config.stage.name == "all" else (config.stage.name,)


def for_stage(config: Config, name: str) -> Config:
    """Returns the configuration of one stage, in which its values in `schedule.stages` replace the schedule's."""
    table = config.schedule.stages.get(name, {})
    try:
        merged = _object(ScheduleConfig, asdict(config.schedule), table)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        line = renamed.unknown_key(f"schedule.{key}", domains.leaves(Config))
        raise UserError(f"schedule.stages.{name}.{key}: {line}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"schedule.stages.{name}: {_one_line(error)}") from error
    domains.check(merged, f"schedule.stages.{name}." if table else "schedule.")
    return replace(config, schedule=merged, stage=replace(config.stage, name=name))


class Amounts(NamedTuple):
    """The numbers of a schedule that every training needs and that have no default values."""

    lr: float
    epochs: int
    batch_size: int
    base_batch_size: int


def amounts_of(config: Config) -> Amounts:
    """Returns the numbers of a schedule that have no default values.

    Raises:
        UserError: one of them is not set.
    """
    values = {key: getattr(config.schedule, key) for key in Amounts._fields}
    for key, value in values.items():
        if value is None:
            raise UserError(f"schedule.{key} is not set for stage={config.stage.name}; choose a schedule that has it")
    return Amounts(**values)


def read(folder: Path) -> Config:
    """Reads the configuration of a run folder.

    Raises:
        UserError: the folder has no config.json, or it is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it") from error


def check(config: Config) -> None:
    """Checks that involve several keys and need no data, weights or devices.

    Raises:
        UserError: keys contradict each other; the message names them and what to do.
    """
    _check_mode(config)
    _check_clips(config)
    for name in stages(config):
        _check_schedule(for_stage(config, name))


def check_start(config: Config) -> None:
    """Checks that the configuration names the weights that training must start from.

    Raises:
        UserError: it does not.
    """
    if config.mode != "train" or config.init.get("from"):
        return
    if config.schedule.starts_from:
        raise UserError(
            f"this schedule starts from {config.schedule.starts_from}: set init.from=RUN_OR_FILE, or choose another one"
        )
    method_of(config).check_start()


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
            f"sync_batchnorm=true needs several CUDA devices, but devices={config.devices} and device={config.device}; "
            f"leave it out, or set devices=N"
        )
    if config.sync_batchnorm and config.schedule.partial_norm:
        raise UserError(
            "sync_batchnorm=true has no effect with schedule.partial_norm=true, which freezes BatchNorm; leave one out"
        )
    if config.mode == "train" and config.checkpoint:
        raise UserError(
            "checkpoint=... is for mode=evaluate and mode=early_exit. Training resumes in its run folder when the same "
            "command is repeated; to start from another run or file set init.from=..."
        )


def _check_clips(config: Config) -> None:
    dataset, segments, method = config.dataset, config.segments, method_of(config)
    if dataset.short_side is not None and dataset.short_side < dataset.frame_size:
        raise UserError(f"dataset.short_side={dataset.short_side} is below dataset.frame_size={dataset.frame_size}")
    if config.mode == "early_exit" and not method.exits_early:
        raise UserError(
            f"mode=early_exit needs a network that predicts step by step: method=uni_adafocus, adafocus_v2 or tokens, "
            f"or adafocus_v1 after stage=2; this is method={method.name}"
        )
    sizes = {len(numbers) for numbers in (dataset.mean, dataset.std) if numbers is not None}
    if not sizes <= {1, 3} or len(sizes) > 1:
        raise UserError("dataset.mean and dataset.std must have three numbers, for R, G and B, or one for all channels")
    if dataset.modality == "flow" and (dataset.frame_template is None or not method.reads_flow):
        raise UserError("dataset.modality=flow needs frame folders (dataset.frame_template) and method=recognizer")
    if config.protocol.segments not in (None, segments.glance) and not method.any_number_of_frames:
        raise UserError(
            f"protocol={config.protocol.name} tests with {config.protocol.segments} frames, which only TSN supports: a "
            f"network with temporal modules needs segments={segments.glance}; choose another protocol"
        )
    _check_division(dataset)
    if dataset.options and dataset.source in choices.SOURCES:
        raise UserError(f"dataset.options are for a data set of a plug-in, not for dataset.source={dataset.source}")
    if dataset.source == "glyphs" and dataset.flip:
        raise UserError("dataset=glyphs must not be flipped, since a flip could change the class: set dataset.flip=0")


def _check_division(dataset: DatasetConfig) -> None:
    """Checks the keys of hold-out and cross-validation."""
    if dataset.folds is None and dataset.fold is not None:
        raise UserError(f"dataset.fold={dataset.fold} needs the number of folds: set dataset.folds=5, for example")
    if dataset.folds is None:
        return
    every = ",".join(map(str, range(dataset.folds)))
    if dataset.fold is None:
        raise UserError(
            f"dataset.folds={dataset.folds} needs the fold for validation: set dataset.fold=0, or run all folds with "
            f"-m dataset.fold={every}"
        )
    if dataset.fold >= dataset.folds:
        raise UserError(f"dataset.fold={dataset.fold} does not exist; of dataset.folds={dataset.folds} choose {every}")


def _check_schedule(config: Config) -> None:
    schedule, method = config.schedule, method_of(config)
    method.check()
    amounts = amounts_of(config)
    share = config.devices * schedule.accumulation_steps
    if amounts.batch_size % share:
        raise UserError(
            f"schedule.batch_size={schedule.batch_size} cannot be shared by devices={config.devices} in "
            f"schedule.accumulation_steps={schedule.accumulation_steps} parts; make it a multiple of {share}"
        )
    if max(schedule.mixup_alpha, schedule.cutmix_alpha) > 0 and schedule.batch_size == share:
        raise UserError(
            f"schedule.mixup_alpha and schedule.cutmix_alpha mix the clips that a device has at once, which with "
            f"schedule.batch_size={schedule.batch_size} is one; make it a larger multiple of {share}"
        )
    if schedule.patience is not None and schedule.select != "best":
        raise UserError(
            "schedule.patience ends training after epochs that were no better: set schedule.select=best, "
            "or the weights of the last of them are used"
        )
    if schedule.patience is not None and schedule.patience >= amounts.epochs:
        raise UserError(
            f"schedule.patience={schedule.patience} never ends a training of schedule.epochs={schedule.epochs}; "
            f"choose a smaller number or leave it out"
        )
    if unknown := sorted(set(schedule.lr_mults) - set(method.lr_parts)):
        raise UserError(f"schedule.lr_mults: unknown parts {unknown}; known are {sorted(method.lr_parts)}")
    if missing := sorted(set(method.needed_lr_parts) - set(schedule.lr_mults)):
        raise UserError(
            f"schedule.lr_mults: method={method.name} needs a learning-rate multiplier for each of {missing}, "
            f"for example +schedule.lr_mults.{missing[0]}=1"
        )
