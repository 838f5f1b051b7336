"""Refuses overrides of keys that the chosen method, data set and mode never read, instead of ignoring them.

Only overrides on the command line are checked; schedule, debug and experiment files may set keys for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adafocus.config.load import for_stage, own_widths, stages
from adafocus.config.schema import Config, ScheduleConfig
from adafocus.core.errors import UserError


@dataclass(frozen=True)
class Readers:
    """The condition under which some keys are read.

    Attributes:
        keys: full keys, or names of whole sections and groups.
        needs: the condition in words, for the message.
        read: whether a given configuration reads the keys.
    """

    keys: tuple[str, ...]
    needs: str
    read: Callable[[Config], bool]


def _keys(section: str, names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names.split())


def _method(*names: str) -> Callable[[Config], bool]:
    return lambda config: config.method.name in names


def _plain(config: Config) -> bool:
    return config.backbone.shift == "none"


def _files(config: Config) -> bool:
    return config.dataset.source == "files"


def _on(method: str, plain: bool) -> Callable[[Config], bool]:
    return lambda config: config.method.name == method and _plain(config) is plain


def _schedules(config: Config) -> list[ScheduleConfig]:
    return [for_stage(config, name).schedule for name in stages(config)]


def _tiny(role: str) -> Callable[[Config], bool]:
    return lambda config: getattr(config.backbone, role).startswith("tiny")


def _adaptive(config: Config) -> bool:
    return config.method.name != "recognizer"


_V1, _V2, _UNI, _RECOGNIZER = "adafocus_v1", "adafocus_v2", "uni_adafocus", "recognizer"
_ADAPTIVE = "a method that chooses patches (adafocus_v1, adafocus_v2, uni_adafocus)"

READERS = (
    # Data.
    Readers(
        _keys(
            "dataset",
            "root videos train_list val_list test_list group folds fold inspect class_file separator frame_template "
            "expected_train expected_val allow_partial min_frames hold_out bad_list reader decode_short_side "
            "video_timeout cache_megabytes fit short_side short_videos crop_scales separate_crops "
            "flip_pairs modality snippet count_divisor",
        ),
        "dataset=folder, or another data set of files",
        _files,
    ),
    Readers(("protocol",), "a data set of files (synthetic videos have no protocol)", _files),
    Readers(
        _keys("dataset", "task glyph_size visible tints frames train_videos val_videos"),
        "dataset=glyphs",
        lambda config: not _files(config),
    ),
    Readers(_keys("dataset", "visible"), "dataset.task=when", lambda config: config.dataset.task == "when"),
    Readers(_keys("dataset", "snippet"), "dataset.modality=flow", lambda config: config.dataset.modality == "flow"),
    # Networks.
    Readers(
        (
            "patch",
            *_keys("segments", "focus"),
            *_keys("backbone", "glance glance_weights glance_channels glance_strides"),
        ),
        _ADAPTIVE,
        _adaptive,
    ),
    Readers(
        _keys("backbone", "glance_size"),
        "method=uni_adafocus, or another method with a policy on plain backbones",
        lambda config: config.method.name == _UNI or (_adaptive(config) and _plain(config)),
    ),
    Readers(
        _keys("backbone", "glance_resize"),
        "method=uni_adafocus, or method=adafocus_v2 on plain backbones",
        lambda config: config.method.name == _UNI or _on(_V2, True)(config),
    ),
    Readers(_keys("backbone", "focus_channels focus_strides"), "backbone=tiny", _tiny("focus")),
    Readers(_keys("backbone", "glance_channels glance_strides"), "backbone=tiny", _tiny("glance")),
    Readers(_keys("backbone", "coordinates"), "backbone=tiny", lambda c: _tiny("focus")(c) or _tiny("glance")(c)),
    Readers(
        _keys("backbone", "policy_hidden"),
        "method=adafocus_v1 or adafocus_v2",
        lambda config: own_widths(config)[0] is not None,
    ),
    Readers(
        _keys("backbone", "classifier_width"),
        "a method with a classifier over both networks, on plain backbones",
        lambda config: own_widths(config)[1] is not None,
    ),
    Readers(
        _keys("backbone", "spatial_hidden temporal_hidden")
        + _keys("patch", "smallest")
        + _keys("segments", "pool")
        + _keys("method", "when")
        + _keys("policy", "temperature draws")
        + _keys("schedule", "size_weight kl_weight"),
        "method=uni_adafocus",
        _method(_UNI),
    ),
    Readers(
        _keys("backbone", "shift_div shift_place"),
        "a backbone with the temporal shift (backbone.shift)",
        lambda config: not _plain(config),
    ),
    # Methods.
    Readers(_keys("method", "where"), "method=adafocus_v2 or uni_adafocus", _method(_V2, _UNI)),
    Readers(_keys("method", "order"), "method=adafocus_v2 on plain backbones", _on(_V2, True)),
    Readers(
        _keys("method", "remove_background"),
        "method=recognizer, or method=uni_adafocus on backbones with the temporal shift",
        lambda config: config.method.name == _RECOGNIZER or _on(_UNI, False)(config),
    ),
    Readers(_keys("policy", "grid convolution"), "method=adafocus_v1 on plain backbones", _on(_V1, True)),
    Readers(
        _keys("policy", "deviation norm"), "method=adafocus_v1 on a backbone with the temporal shift", _on(_V1, False)
    ),
    Readers(
        _keys("policy", "reward gamma clip value_weight entropy_weight epochs minibatches"),
        "method=adafocus_v1 and its stage 2 (stage=2 or stage=all)",
        lambda config: config.method.name == _V1 and "2" in stages(config),
    ),
    Readers(_keys("evaluate", "controls"), _ADAPTIVE, _adaptive),
    # Recipes.
    Readers(_keys("schedule", "lr_mults"), _ADAPTIVE, _adaptive),
    Readers(
        _keys("schedule", "dropout"),
        "a method with a classifier over both networks",
        lambda config: config.method.name == _V1 or (_adaptive(config) and _plain(config)),
    ),
    Readers(
        _keys("schedule", "partial_norm param_groups head_lr_mult"),
        "method=recognizer",
        _method(_RECOGNIZER),
    ),
    Readers(
        _keys("schedule", "freeze_norm"),
        "a method that is trained in one stage",
        lambda config: config.method.name != _V1,
    ),
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
    # Modes.
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
            if any(key == name or key.startswith(f"{name}.") for name in readers.keys) and not readers.read(config):
                raise UserError(f"{key} needs {readers.needs}: it has no effect here, so leave it out")
