"""Refuses overrides of keys that the chosen method, data set and mode never read, instead of ignoring them.

Only overrides on the command line are checked; schedule, debug and experiment files may set keys for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import get_type_hints

from adafocus.config.load import for_stage, stages
from adafocus.config.schema import Config, ScheduleConfig
from adafocus.core import choices
from adafocus.core.errors import UserError
from adafocus.methods import method_of
from adafocus.methods.adafocus_v2 import options as v2
from adafocus.methods.options import Options


@dataclass(frozen=True)
class Readers:
    """The condition under which some keys are read.

    Attributes:
        keys: full keys, or names of whole sections and groups.
        needs: the condition in words, for the message.
        read: whether a given configuration reads the keys.
        inside: whether the keys inside a named section are meant as well.
    """

    keys: tuple[str, ...]
    needs: str
    read: Callable[[Config], bool]
    inside: bool = True

    def ignored(self, config: Config, typed: str) -> bool:
        """Returns whether a key of the command line is one of `keys` and is not read with this configuration."""
        inside = self.inside and any(typed.startswith(f"{key}.") for key in self.keys)
        return (inside or typed in self.keys) and not self.read(config)


def _of_methods() -> Iterator[Readers]:
    """Yields an entry for each class of method-specific options; the method says whether it reads them."""
    sections = [section for section in get_type_hints(Config).values() if isinstance(section, type)]
    for kind in (base for section in sections for base in section.__bases__ if issubclass(base, Options)):
        yield Readers(kind.keys(), kind.needs, partial(_has, kind))
    yield Readers((Options.section,), Options.needs, _has_own)


def _has_own(config: Config) -> bool:
    return any(kind.section == Options.section for kind in method_of(config).options)


def _has(kind: type[Options], config: Config) -> bool:
    return kind in method_of(config).options


def _keys(section: str, names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names.split())


def _plain(config: Config) -> bool:
    return config.backbone.shift == "none"


def _files(config: Config) -> bool:
    return config.dataset.source == "files"


def _views(config: Config) -> bool:
    return config.dataset.source != "glyphs"


def _rgb(config: Config) -> bool:
    return _views(config) and config.dataset.modality == "rgb"


def _supervised(config: Config) -> bool:
    return method_of(config).learns_from_labels


def _taught(config: Config) -> bool:
    return config.mode == "train" and config.teacher.checkpoint is not None


def _schedules(config: Config) -> list[ScheduleConfig]:
    return [for_stage(config, name).schedule for name in stages(config)]


def _tiny(role: str) -> Callable[[Config], bool]:
    return lambda config: getattr(config.backbone, role) in ("tiny_glance", "tiny_focus")


def _options(role: str) -> Callable[[Config], bool]:
    return lambda config: getattr(config.backbone, role) not in set(choices.BACKBONES) - {"tiny_vit"}


_LIBRARIES = "tiny_vit, or a network of timm, torchvision or a plug-in"

READERS = (
    # Data.
    Readers(
        _keys(
            "dataset",
            "videos train_list val_list test_list group folds fold inspect class_file separator frame_template "
            "expected_train expected_val allow_partial min_frames hold_out bad_list reader video_timeout "
            "cache_megabytes modality snippet count_divisor",
        ),
        "dataset=folder, or another data set of files",
        _files,
    ),
    Readers(
        _keys(
            "dataset",
            "root decode_short_side fit short_side short_videos crop_scales separate_crops flip_pairs",
        ),
        "dataset=folder, or another data set of files or of a plug-in",
        _views,
    ),
    Readers(_keys("dataset", "randaugment_ops"), "RGB videos of files or of a plug-in", _rgb),
    Readers(
        _keys("dataset", "randaugment_magnitude"),
        "RGB videos of files or of a plug-in, and dataset.randaugment_ops",
        lambda config: _rgb(config) and config.dataset.randaugment_ops > 0,
    ),
    Readers(("protocol",), "a data set of files (synthetic videos have no protocol)", _views),
    Readers(
        _keys("dataset", "task glyph_size visible tints decoys frames train_videos val_videos"),
        "dataset=glyphs",
        lambda config: config.dataset.source == "glyphs",
    ),
    Readers(("policy",), v2.Policy.needs, partial(_has, v2.Policy), inside=False),
    Readers(_keys("dataset", "visible"), "dataset.task=when", lambda config: config.dataset.task == "when"),
    Readers(_keys("dataset", "snippet"), "dataset.modality=flow", lambda config: config.dataset.modality == "flow"),
    # Networks.
    Readers(_keys("backbone", "focus_channels focus_strides"), "backbone=tiny", _tiny("focus")),
    Readers(_keys("backbone", "glance_channels glance_strides"), "backbone=tiny", _tiny("glance")),
    Readers(_keys("backbone", "coordinates"), "backbone=tiny", lambda c: _tiny("focus")(c) or _tiny("glance")(c)),
    Readers(_keys("backbone", "focus_options"), _LIBRARIES, _options("focus")),
    Readers(_keys("backbone", "glance_options"), _LIBRARIES, _options("glance")),
    Readers(
        _keys("backbone", "shift_div shift_place"),
        "a backbone with the temporal shift (backbone.shift)",
        lambda config: not _plain(config),
    ),
    *_of_methods(),
    # Recipes.
    Readers(
        _keys("schedule", "label_smoothing mixup_alpha cutmix_alpha class_weights"),
        "a stage that learns from labels, which stage 2 of adafocus_v1 does not",
        _supervised,
    ),
    Readers(
        _keys("schedule", "class_weights sampling"),
        "a data set of files or of a plug-in (synthetic videos have balanced classes)",
        _views,
    ),
    Readers(
        _keys("schedule", "layer_decay"),
        "a stage that trains a backbone, which stages 2 and 3 of adafocus_v1 do not",
        lambda config: method_of(config).trains_backbones,
    ),
    Readers(
        ("teacher",),
        "mode=train and a stage that learns from labels, which stage 2 of adafocus_v1 does not",
        lambda config: config.mode == "train" and _supervised(config),
    ),
    Readers(_keys("teacher", "weight temperature"), "teacher=RUN_OR_FILE", _taught),
    Readers(
        _keys("schedule", "momentum"),
        "schedule.optimizer=sgd",
        lambda config: any(schedule.optimizer == "sgd" for schedule in _schedules(config)),
    ),
    Readers(
        _keys("schedule", "cosine_epochs"),
        "schedule.lr_schedule=cosine",
        lambda config: any(schedule.lr_schedule == "cosine" for schedule in _schedules(config)),
    ),
    Readers(
        _keys("schedule", "milestones lr_gamma"),
        "schedule.lr_schedule=step",
        lambda config: any(schedule.lr_schedule == "step" for schedule in _schedules(config)),
    ),
    # Devices and modes.
    Readers(("tf32",), "a GPU (device=cuda or auto)", lambda config: config.device != "cpu"),
    Readers(
        _keys("evaluate", "precision fold_norm program"),
        "mode=evaluate or mode=early_exit",
        lambda config: config.mode in ("evaluate", "early_exit"),
    ),
    Readers(
        _keys("evaluate", "program_for"),
        "evaluate.program=compile, onnxruntime or openvino",
        lambda config: config.evaluate.program != "eager" and config.mode in ("evaluate", "early_exit"),
    ),
    Readers(
        _keys("early_exit", "sure calibration"),
        "early_exit.lose",
        lambda config: config.early_exit.lose is not None,
    ),
    Readers(("early_exit",), "mode=early_exit", lambda config: config.mode == "early_exit"),
    Readers(
        ("checkpoint",), "mode=evaluate or mode=early_exit", lambda config: config.mode in ("evaluate", "early_exit")
    ),
)


def check(config: Config, typed: Iterable[str]) -> None:
    """Refuses overrides that have no effect.

    Args:
        config: the composed configuration.
        typed: keys and groups that were set on the command line.

    Raises:
        UserError: a key has no effect; the message names the first one and what it needs.
    """
    for key in typed:
        for readers in READERS:
            if readers.ignored(config, key):
                raise UserError(f"{key} needs {readers.needs}: it has no effect here, so leave it out")


def unread(config: Config) -> set[str]:
    """Returns keys and sections that are not read with this configuration, so that they do not identify a run."""
    return {key for readers in READERS for key in readers.keys if readers.ignored(config, key)}
