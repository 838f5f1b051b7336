"""Tests that each experiment for TSM and TANet sets what the training command of its repository sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from helpers.configs import CONF, composed

from adafocus import build
from adafocus.core.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Settings of a released training command; the defaults are the values of most commands."""

    dataset: str
    segments: int = 8
    lr: float = 0.01
    weight_decay: float = 5e-4
    milestones: tuple[int, ...] = (20, 40)
    epochs: int = 50
    batch_size: int = 64
    head_dropout: float = 0.5
    partial_norm: bool = False
    flip: float = 0.0
    train_frames: str = "uniform"
    protocol: str = "tsm_1crop"


def kinetics(**changes: Any) -> Recipe:
    """The recipe of TSM and TSN on Kinetics-400 with uniform sampling."""
    common = {"dataset": "kinetics400", "lr": 0.02, "weight_decay": 1e-4, "batch_size": 128, "flip": 0.5}
    return Recipe(**{**common, **changes})


def dense(**changes: Any) -> Recipe:
    """The recipe on Kinetics-400 with dense sampling (from 64 consecutive frames), which has twice the epochs."""
    common = {"lr": 0.01, "batch_size": 64, "milestones": (40, 80), "epochs": 100, "train_frames": "dense"}
    return kinetics(**{**common, "protocol": "tsm_dense_30view", **changes})


def fine_tuned(dataset: str, **changes: Any) -> Recipe:
    """The recipe of fine-tuning from weights of Kinetics-400, with all BatchNorm layers but the first frozen."""
    common = {"lr": 0.001, "milestones": (10, 20), "epochs": 25, "partial_norm": True}
    return Recipe(dataset, **{**common, **changes})


#: Experiment -> settings of the command that the TSM or TANet repository or its authors give.
TABLE = {
    "tsn_kinetics400_5f": kinetics(segments=5),
    "tsm_kinetics400_8f": kinetics(),
    "tsm_kinetics400_16f": kinetics(segments=16),
    "tsm_kinetics400_8f_dense": dense(),
    "nl_tsm_kinetics400_8f_dense": dense(),
    "tsm_kinetics400_mbv2_8f_dense": dense(head_dropout=0),
    "tsm_kinetics400_8f_flow": kinetics(),
    "tsm_ucf101_8f_from_kinetics": fine_tuned("ucf101", head_dropout=0.8, flip=0.5),
    "tsm_hmdb51_8f_from_kinetics": fine_tuned("hmdb51", head_dropout=0.8, flip=0.5),
    "tsm_sthv1_8f": Recipe("sthv1"),
    "tsm_sthv1_16f": Recipe("sthv1", segments=16),
    "tsm_sthv1_r101_8f": Recipe("sthv1"),
    "tsm_sthv2_8f": Recipe("sthv2", protocol="tsm_twice_6view_full"),
    "tsm_sthv2_16f": Recipe("sthv2", segments=16, protocol="tsm_twice_6view_full"),
    "tsm_sthv2_r101_8f": Recipe("sthv2", protocol="tsm_twice_6view_full"),
    "tsm_sthv1_8f_author": Recipe("sthv1", lr=0.025, weight_decay=0.0001),
    "tsm_sthv1_16f_from_kinetics": fine_tuned("sthv1", segments=16),
    "tsm_jester_mbv2_8f": Recipe("jester", weight_decay=0.0001, batch_size=32),
    "tsm_jester_mbv2_online_8f": Recipe("jester", weight_decay=0.0001, batch_size=32),
    "tam_kinetics400_8f": dense(milestones=(50, 75, 90), protocol="tam_dense_30view"),
    "tam_kinetics400_16f": dense(segments=16, milestones=(50, 75, 90), protocol="tam_dense_30view"),
    "tam_sthv1_8f": Recipe(
        "sthv1", weight_decay=0.001, milestones=(30, 40, 45), head_dropout=0.6, protocol="tam_1crop"
    ),
    "tam_sthv1_16f": Recipe(
        "sthv1", segments=16, weight_decay=0.001, milestones=(30, 40, 45), head_dropout=0.6, protocol="tam_1crop"
    ),
    "tam_sthv2_8f": Recipe(
        "sthv2", lr=0.02, milestones=(30, 40, 45), batch_size=128, flip=0.5, protocol="tam_uniform2_6view"
    ),
    "tam_sthv2_16f": Recipe(
        "sthv2", segments=16, lr=0.02, milestones=(30, 40, 45), batch_size=128, flip=0.5, protocol="tam_uniform2_6view"
    ),
}


class Network(NamedTuple):
    """The expected network of an experiment or of a family of experiments."""

    shift: str = "none"
    shift_place: str = "blockres"
    adaptive: bool = False
    non_local: bool = False
    focus: str = "resnet50"


NETWORKS = {
    "tsn": Network(),
    "tsm": Network(shift="bidirectional"),
    "nl_tsm": Network(shift="bidirectional", non_local=True),
    "tam": Network(adaptive=True),
    "tsm_sthv1_r101_8f": Network(shift="bidirectional", focus="resnet101"),
    "tsm_sthv2_r101_8f": Network(shift="bidirectional", focus="resnet101"),
    "tsm_kinetics400_mbv2_8f_dense": Network(shift="bidirectional", focus="mobilenet_v2"),
    "tsm_jester_mbv2_8f": Network(shift="bidirectional", shift_place="branch", focus="mobilenet_v2"),
    "tsm_jester_mbv2_online_8f": Network(shift="online", focus="mobilenet_v2"),
}


def recipe(name: str, *typed: str):
    start = "init.from=weights.pth" if "from_kinetics" in name else "init.from=null"
    return composed(f"experiment={name}", "dataset.root=/data", start, *typed)


@pytest.mark.parametrize("name", TABLE)
def test_effective_hyper_parameters(name: str) -> None:
    settings = recipe(name)
    expected, schedule = TABLE[name], settings.schedule
    assert settings.method.name == "recognizer"
    found = Recipe(
        dataset=settings.dataset.name,
        segments=settings.segments.glance,
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        milestones=tuple(schedule.milestones),
        epochs=schedule.epochs,
        batch_size=schedule.batch_size,
        head_dropout=schedule.head_dropout,
        partial_norm=schedule.partial_norm,
        flip=settings.dataset.flip,
        train_frames=settings.protocol.train or "uniform",
        protocol=settings.protocol.name,
    )
    assert found == expected
    assert (schedule.optimizer, schedule.momentum, schedule.clip_grad_norm) == ("sgd", 0.9, 20.0)
    assert (schedule.lr_schedule, schedule.lr_gamma, schedule.step_per_epoch) == ("step", 0.1, True)
    assert (schedule.base_batch_size, schedule.warmup_epochs) == (expected.batch_size, 0.0)
    assert (schedule.param_groups, schedule.head_lr_mult, schedule.freeze_norm) == ("tsm", 5.0, False)
    assert (schedule.evaluate_every, schedule.select) == (1, "best")
    assert settings.dataset.short_videos == "first_frame"
    scales = [1.0, 0.875, 0.75] if name.endswith("flow") else [1.0, 0.875, 0.75, 0.66]
    assert settings.dataset.crop_scales == scales
    family = "nl_tsm" if name.startswith("nl_tsm") else name.split("_")[0]
    net = settings.backbone
    assert Network(net.shift, net.shift_place, net.adaptive, net.non_local, net.focus) == NETWORKS.get(
        name, NETWORKS[family]
    )
    assert net.shift_div == 8


def test_the_table_has_every_experiment_of_these_systems() -> None:
    found = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert {name for name in found if name.startswith(("ts", "nl", "tam"))} == set(TABLE)


@pytest.mark.parametrize(
    "name", ["tsm_kinetics400_8f", "tsm_ucf101_8f_from_kinetics", "tam_sthv2_8f", "tsm_kinetics400_8f_flow"]
)
def test_recipes_become_networks_with_these_rates(name: str) -> None:
    settings = recipe(name)
    with torch.device("meta"):
        network = build.model(settings, settings.dataset.classes, weights=False)
    stage = build.stage(settings, network)
    groups = {group.name: group for group in stage.param_groups()}
    assert (groups["head_weight"].rate, groups["head_bias"].rate, groups["head_bias"].decay) == (5.0, 10.0, 0.0)
    assert groups["first_conv_weight"].rate == (5.0 if name.endswith("flow") else 1.0)
    norms = len(groups["norm"].parameters)
    assert norms == {"tsm_ucf101_8f_from_kinetics": 2, "tam_sthv2_8f": 170}.get(name, 106)


def test_fine_tuning_recipes_ask_for_their_start() -> None:
    with pytest.raises(UserError, match="Kinetics-400.*init.from"):
        composed("experiment=tsm_ucf101_8f_from_kinetics", "dataset.root=/data")


@pytest.mark.parametrize("path", sorted((CONF / "protocol").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_composes_under_its_name(path) -> None:
    settings = composed(
        "dataset=sthv2", "method=recognizer", "backbone=r50_tsn", "dataset.root=/data", f"protocol={path.stem}"
    )
    assert settings.protocol.name == path.stem


def test_a_network_that_joins_frames_keeps_its_number_of_frames() -> None:
    with pytest.raises(UserError, match="only TSN"):
        composed("dataset=sthv2", "method=recognizer", "dataset.root=/data", "protocol=mmaction2_tsn_25frames")
