"""Renamed keys: conversion of configurations that older versions stored, and "did you mean" for unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from adafocus.methods.options import Options

#: Keys of version 0.1 -> current keys, for stored configurations.
KEYS = {
    "schedule.optimiser": "schedule.optimizer",
    "schedule.rate": "schedule.lr",
    "schedule.rates": "schedule.lr_mults",
    "schedule.shape": "schedule.lr_schedule",
    "schedule.per_epoch": "schedule.step_per_epoch",
    "schedule.horizon": "schedule.cosine_epochs",
    "schedule.decay": "schedule.lr_gamma",
    "schedule.batch": "schedule.batch_size",
    "schedule.base_batch": "schedule.base_batch_size",
    "schedule.scaling": "schedule.lr_scaling",
    "schedule.accumulate": "schedule.accumulation_steps",
    "schedule.clip": "schedule.clip_grad_norm",
    "schedule.groups": "schedule.param_groups",
    "schedule.head_rate": "schedule.head_lr_mult",
    "evaluate.batch": "evaluate.batch_size",
    "output.tensorboard": "output.loggers",
}
VALUES = {"method.name": {"recogniser": "recognizer"}, "method.where": {"centre": "center"}}
#: Common names in other projects -> the key here, for "did you mean".
ELSEWHERE = {
    "learning_rate": "schedule.lr",
    "rate": "schedule.lr",
    "epochs": "schedule.epochs",
    "batch_size": "schedule.batch_size",
    "optimiser": "schedule.optimizer",
    "batch": "schedule.batch_size",
    "batchsize": "schedule.batch_size",
    "bs": "schedule.batch_size",
    "wd": "schedule.weight_decay",
    "decay": "schedule.weight_decay",
    "epoch": "schedule.epochs",
    "num_epochs": "schedule.epochs",
    "max_epochs": "schedule.epochs",
    "warmup": "schedule.warmup_epochs",
    "scheduler": "schedule.lr_schedule",
    "grad_clip": "schedule.clip_grad_norm",
    "clip": "schedule.clip_grad_norm",
    "num_workers": "loader.workers",
    "gpus": "devices",
    "gpu": "devices",
    "num_gpus": "devices",
    "amp": "precision",
    "data": "dataset.root",
    "data_dir": "dataset.root",
    "data_path": "dataset.root",
    "path": "dataset.root",
    "frames": "segments.glance",
    "num_frames": "segments.glance",
    "num_segments": "segments.glance",
    "patch_size": "patch.size",
    "img_size": "dataset.frame_size",
    "image_size": "dataset.frame_size",
    "input_size": "dataset.frame_size",
    "crop_size": "dataset.frame_size",
    "num_classes": "dataset.classes",
    "ckpt": "checkpoint",
    "resume": "checkpoint",
    "pretrained": "backbone.weights",
    "model": "method",
    "arch": "backbone",
    "out": "name",
    "center": "method.where=center",
    "centre": "method.where=center",
    "output_dir": "name",
}


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown key, with the key that was probably meant."""
    known = list(known)
    renamed = KEYS.get(key)
    if renamed:
        return f"{key} is now {renamed}"
    if (table := key.rpartition(".")[0]).endswith("options") and table in known:
        own = sum((options.keys() for options in Options.__subclasses__() if options.section == table), ())
        if key not in own and (near := difflib.get_close_matches(key, own, 1, 0.75)):
            return f"{key} is not a key of the configuration; did you mean {near[0]}?"
        return f"{key} is not a key yet: write +{key}=VALUE"
    meant = _meant(key, known)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{key} is not a key of the configuration{hint or '; `python run.py --cfg job` shows all keys'}"


def _meant(key: str, known: list[str]) -> str:
    leaf = key.rsplit(".", 1)[-1]
    if leaf in ELSEWHERE:
        return ELSEWHERE[leaf]
    same = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    near = same or difflib.get_close_matches(key, known, 1, 0.75) or _near_leaf(leaf, known)
    return " or ".join(near[:3])


def _near_leaf(leaf: str, known: list[str]) -> list[str]:
    near = difflib.get_close_matches(leaf, {name.rsplit(".", 1)[-1] for name in known}, 1, 0.75)
    return [name for name in known if near and name.rsplit(".", 1)[-1] == near[0]]


def unknown_option(group: str, option: str, options: Iterable[str]) -> str:
    """Returns the message for an unknown option of a YAML group, with the option that was probably meant."""
    options = sorted(options)
    near = [] if option.isdigit() else difflib.get_close_matches(option, options, 1, 0.5)
    if near and len(options) > 12:  # a long list would hide the suggestion
        return f"{group}={option} is no option; did you mean {near[0]}? conf/{group} holds {len(options)}"
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{group}={option} is no option; choose one of {', '.join(options)}{meant}"


def is_older(values: dict[str, Any]) -> bool:
    """Returns whether a stored configuration was written by version 0.1, before the keys were renamed."""
    schedule = values.get("schedule")
    return isinstance(schedule, dict) and "rate" in schedule


def with_loggers(values: dict[str, Any]) -> dict[str, Any]:
    """Converts a stored configuration so that loggers are a list; version 0.1 had a switch for a single one."""
    output = values.get("output")
    if not isinstance(output, dict) or "tensorboard" not in output:
        return values
    rest = {key: value for key, value in output.items() if key != "tensorboard"}
    return {**values, "output": {**rest, "loggers": ["tensorboard"] if output["tensorboard"] else []}}


def translated(values: dict[str, Any]) -> dict[str, Any]:
    """Renames keys and words of a configuration of version 0.1; `load` converts values that changed their meaning."""
    new = {section: _renamed(section, part) for section, part in values.items()}
    stages = new["schedule"].get("stages")
    if isinstance(stages, dict):
        new["schedule"]["stages"] = {name: _renamed("schedule", part) for name, part in stages.items()}
    for key, words in VALUES.items():
        section, leaf = key.split(".")
        if isinstance(new.get(section), dict) and leaf in new[section]:
            new[section][leaf] = words.get(new[section][leaf], new[section][leaf])
    return new


def _renamed(section: str, part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {KEYS.get(f"{section}.{key}", f"{section}.{key}").removeprefix(f"{section}."): v for key, v in part.items()}
