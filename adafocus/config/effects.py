"""Refuses overrides of keys that the chosen method, data set and mode never read, instead of ignoring them.

Only overrides on the command line are checked; schedule, debug and experiment files may set keys for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adafocus.config.load import for_stage, stages
from adafocus.config.schema import Config, ScheduleConfig
from adafocus.core.errors import UserError
from adafocus.methods import method_of


@dataclass(frozen=True)
class Readers:
    """The condition under which some keys are read.

    Attributes:
        keys: full keys, or names of whole sections and groups.
        needs: the condition in words, for the message.
        read: whether a given configuration reads the keys; None: the method tells, see `methods.base.Method.reads`.
    """

    keys: tuple[str, ...]
    needs: str
    read: Callable[[Config], bool] | None = None

    def ignored(self, config: Config, typed: str) -> bool:
        """Whether a typed key is one of these and nothing reads it."""
        named = [key for key in self.keys if typed == key or typed.startswith(f"{key}.")]
        if not named:
            return False
        return not (self.read(config) if self.read else set(named) & method_of(config).reads)


def _keys(section: str, names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names.split())


def _plain(config: Config) -> bool:
    return config.backbone.shift == "none"


def _files(config: Config) -> bool:
    return config.dataset.source == "files"


def _views(config: Config) -> bool:
    return config.dataset.source != "glyphs"


def _schedules(config: Config) -> list[ScheduleConfig]:
    return [for_stage(config, name).schedule for name in stages(config)]


def _tiny(role: str) -> Callable[[Config], bool]:
    return lambda config: getattr(config.backbone, role).startswith("tiny")


_ADAPTIVE = "a method that chooses patches (adafocus_v1, adafocus_v2, uni_adafocus)"

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
    Readers(("protocol",), "a data set of files (synthetic videos have no protocol)", _views),
    Readers(
        _keys("dataset", "task glyph_size visible tints frames train_videos val_videos"),
        "dataset=glyphs",
        lambda config: config.dataset.source == "glyphs",
    ),
    Readers(_keys("dataset", "visible"), "dataset.task=when", lambda config: config.dataset.task == "when"),
    Readers(_keys("dataset", "snippet"), "dataset.modality=flow", lambda config: config.dataset.modality == "flow"),
    # Networks.
    Readers(_keys("backbone", "focus_channels focus_strides"), "backbone=tiny", _tiny("focus")),
    Readers(_keys("backbone", "glance_channels glance_strides"), "backbone=tiny", _tiny("glance")),
    Readers(_keys("backbone", "coordinates"), "backbone=tiny", lambda c: _tiny("focus")(c) or _tiny("glance")(c)),
    Readers(
        _keys("backbone", "shift_div shift_place"),
        "a backbone with the temporal shift (backbone.shift)",
        lambda config: not _plain(config),
    ),
    # Methods.
    Readers(
        (
            "patch",
            *_keys("segments", "focus"),
            *_keys("backbone", "glance glance_weights glance_channels glance_strides"),
        ),
        _ADAPTIVE,
    ),
    Readers(
        _keys("backbone", "glance_size"), "method=uni_adafocus, or another method with a policy on plain backbones"
    ),
    Readers(_keys("backbone", "glance_resize"), "method=uni_adafocus, or method=adafocus_v2 on plain backbones"),
    Readers(_keys("backbone", "policy_hidden"), "method=adafocus_v1 or adafocus_v2"),
    Readers(_keys("backbone", "classifier_width"), "a method with a classifier over both networks, on plain backbones"),
    Readers(
        _keys("backbone", "spatial_hidden temporal_hidden")
        + _keys("patch", "smallest")
        + _keys("segments", "pool")
        + _keys("method", "when")
        + _keys("policy", "temperature draws")
        + _keys("schedule", "size_weight kl_weight"),
        "method=uni_adafocus",
    ),
    Readers(_keys("method", "where"), "method=adafocus_v2 or uni_adafocus"),
    Readers(_keys("method", "order"), "method=adafocus_v2 on plain backbones"),
    Readers(_keys("method", "options"), "a method of a plug-in"),
    Readers(
        _keys("method", "remove_background"),
        "method=recognizer, or method=uni_adafocus on backbones with the temporal shift",
    ),
    Readers(_keys("policy", "name options"), "method=adafocus_v2"),
    Readers(_keys("policy", "grid convolution"), "method=adafocus_v1 on plain backbones"),
    Readers(_keys("policy", "deviation norm"), "method=adafocus_v1 on a backbone with the temporal shift"),
    Readers(
        _keys("policy", "reward gamma clip value_weight entropy_weight epochs minibatches"),
        "method=adafocus_v1 and its stage 2 (stage=2 or stage=all)",
    ),
    Readers(_keys("evaluate", "controls"), _ADAPTIVE),
    # Recipes.
    Readers(_keys("schedule", "lr_mults"), _ADAPTIVE),
    Readers(_keys("schedule", "dropout"), "a method with a classifier over both networks"),
    Readers(_keys("schedule", "partial_norm param_groups head_lr_mult"), "method=recognizer"),
    Readers(_keys("schedule", "freeze_norm"), "a method that is trained in one stage"),
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
    """Keys and sections that nothing reads in this combination, so that their values do not make it another run."""
    return {key for readers in READERS for key in readers.keys if readers.ignored(config, key)}
