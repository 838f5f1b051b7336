"""The seeds' training commands, one experiment each, against the tables of the specifications."""

from __future__ import annotations

import pytest
import torch
from test_config import CONF, composed

from adafocus import build
from adafocus.core.errors import UserError

NPB, PBN = False, True
FLIP, NO_FLIP = 0.5, 0.0
#: experiment -> dataset, segments, rate, decay, milestones, epochs, batch, dropout, partial BN, flip, training frames, protocol
#: Spec tsm section 5.4 and 7.1; spec tam section 5.
TABLE = {
    "tsn_kinetics400_5f": ("kinetics400", 5, 0.02, 1e-4, [20, 40], 50, 128, 0.5, NPB, FLIP, "uniform", "tsm_1crop"),
    "tsm_kinetics400_8f": ("kinetics400", 8, 0.02, 1e-4, [20, 40], 50, 128, 0.5, NPB, FLIP, "uniform", "tsm_1crop"),
    "tsm_kinetics400_16f": ("kinetics400", 16, 0.02, 1e-4, [20, 40], 50, 128, 0.5, NPB, FLIP, "uniform", "tsm_1crop"),
    "tsm_kinetics400_8f_dense": (
        "kinetics400",
        8,
        0.01,
        1e-4,
        [40, 80],
        100,
        64,
        0.5,
        NPB,
        FLIP,
        "dense",
        "tsm_dense_30view",
    ),
    "nl_tsm_kinetics400_8f_dense": (
        "kinetics400",
        8,
        0.01,
        1e-4,
        [40, 80],
        100,
        64,
        0.5,
        NPB,
        FLIP,
        "dense",
        "tsm_dense_30view",
    ),
    "tsm_kinetics400_mbv2_8f_dense": (
        "kinetics400",
        8,
        0.01,
        1e-4,
        [40, 80],
        100,
        64,
        0.0,
        NPB,
        FLIP,
        "dense",
        "tsm_dense_30view",
    ),
    "tsm_kinetics400_8f_flow": (
        "kinetics400",
        8,
        0.02,
        1e-4,
        [20, 40],
        50,
        128,
        0.5,
        NPB,
        FLIP,
        "uniform",
        "tsm_1crop",
    ),
    "tsm_ucf101_8f_from_kinetics": ("ucf101", 8, 0.001, 5e-4, [10, 20], 25, 64, 0.8, PBN, FLIP, "uniform", "tsm_1crop"),
    "tsm_hmdb51_8f_from_kinetics": ("hmdb51", 8, 0.001, 5e-4, [10, 20], 25, 64, 0.8, PBN, FLIP, "uniform", "tsm_1crop"),
    "tsm_sthv1_8f": ("sthv1", 8, 0.01, 5e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tsm_sthv1_16f": ("sthv1", 16, 0.01, 5e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tsm_sthv1_r101_8f": ("sthv1", 8, 0.01, 5e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tsm_sthv2_8f": ("sthv2", 8, 0.01, 5e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_twice_6view_full"),
    "tsm_sthv2_16f": ("sthv2", 16, 0.01, 5e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_twice_6view_full"),
    "tsm_sthv2_r101_8f": (
        "sthv2",
        8,
        0.01,
        5e-4,
        [20, 40],
        50,
        64,
        0.5,
        NPB,
        NO_FLIP,
        "uniform",
        "tsm_twice_6view_full",
    ),
    "tsm_sthv1_8f_author": ("sthv1", 8, 0.025, 1e-4, [20, 40], 50, 64, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tsm_sthv1_16f_from_kinetics": (
        "sthv1",
        16,
        0.001,
        5e-4,
        [10, 20],
        25,
        64,
        0.5,
        PBN,
        NO_FLIP,
        "uniform",
        "tsm_1crop",
    ),
    "tsm_jester_mbv2_8f": ("jester", 8, 0.01, 1e-4, [20, 40], 50, 32, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tsm_jester_mbv2_online_8f": ("jester", 8, 0.01, 1e-4, [20, 40], 50, 32, 0.5, NPB, NO_FLIP, "uniform", "tsm_1crop"),
    "tam_kinetics400_8f": (
        "kinetics400",
        8,
        0.01,
        1e-4,
        [50, 75, 90],
        100,
        64,
        0.5,
        NPB,
        FLIP,
        "dense",
        "tam_dense_30view",
    ),
    "tam_kinetics400_16f": (
        "kinetics400",
        16,
        0.01,
        1e-4,
        [50, 75, 90],
        100,
        64,
        0.5,
        NPB,
        FLIP,
        "dense",
        "tam_dense_30view",
    ),
    "tam_sthv1_8f": ("sthv1", 8, 0.01, 1e-3, [30, 40, 45], 50, 64, 0.6, NPB, NO_FLIP, "uniform", "tam_1crop"),
    "tam_sthv1_16f": ("sthv1", 16, 0.01, 1e-3, [30, 40, 45], 50, 64, 0.6, NPB, NO_FLIP, "uniform", "tam_1crop"),
    "tam_sthv2_8f": ("sthv2", 8, 0.02, 5e-4, [30, 40, 45], 50, 128, 0.5, NPB, FLIP, "uniform", "tam_uniform2_6view"),
    "tam_sthv2_16f": ("sthv2", 16, 0.02, 5e-4, [30, 40, 45], 50, 128, 0.5, NPB, FLIP, "uniform", "tam_uniform2_6view"),
}
#: experiment -> shift, place, adaptive, non-local, focus network
NETWORKS = {
    "tsn": ("none", "blockres", False, False, "resnet50"),
    "tsm": ("bidirectional", "blockres", False, False, "resnet50"),
    "nl_tsm": ("bidirectional", "blockres", False, True, "resnet50"),
    "tam": ("none", "blockres", True, False, "resnet50"),
    "tsm_sthv1_r101_8f": ("bidirectional", "blockres", False, False, "resnet101"),
    "tsm_sthv2_r101_8f": ("bidirectional", "blockres", False, False, "resnet101"),
    "tsm_kinetics400_mbv2_8f_dense": ("bidirectional", "blockres", False, False, "mobilenet_v2"),
    "tsm_jester_mbv2_8f": ("bidirectional", "branch", False, False, "mobilenet_v2"),
    "tsm_jester_mbv2_online_8f": ("online", "blockres", False, False, "mobilenet_v2"),
}


def recipe(name: str, *typed: str):
    start = "init.from=weights.pth" if "from_kinetics" in name else "init.from=null"
    return composed(f"experiment={name}", "dataset.root=/data", start, *typed)


@pytest.mark.parametrize("name", TABLE)
def test_effective_hyper_parameters(name: str) -> None:
    settings = recipe(name)
    dataset, segments, rate, decay, milestones, epochs, batch, dropout, partial, flip, frames, protocol = TABLE[name]
    schedule = settings.schedule
    assert (settings.dataset.name, settings.segments.glance, settings.method.name) == (dataset, segments, "recognizer")
    assert (schedule.optimizer, schedule.momentum, schedule.clip_grad_norm, schedule.lr_schedule) == (
        "sgd",
        0.9,
        20.0,
        "step",
    )
    assert (schedule.lr, schedule.weight_decay, schedule.milestones) == (rate, decay, milestones)
    assert (schedule.epochs, schedule.batch_size, schedule.base_batch_size, schedule.warmup_epochs) == (
        epochs,
        batch,
        batch,
        0.0,
    )
    assert (schedule.head_dropout, schedule.partial_norm, schedule.freeze_norm) == (dropout, partial, False)
    assert (schedule.param_groups, schedule.head_lr_mult, schedule.lr_gamma, schedule.step_per_epoch) == (
        "tsm",
        5.0,
        0.1,
        True,
    )
    assert (schedule.evaluate_every, schedule.select) == (1, "best")
    assert settings.dataset.flip == flip and settings.dataset.short_videos == "first_frame"
    assert (settings.protocol.train or "uniform", settings.protocol.name) == (frames, protocol)
    scales = [1.0, 0.875, 0.75] if name.endswith("flow") else [1.0, 0.875, 0.75, 0.66]
    assert settings.dataset.crop_scales == scales
    family = (
        name
        if name in NETWORKS
        else name.split("_kinetics")[0].split("_")[0]
        if not name.startswith("nl")
        else "nl_tsm"
    )
    net = settings.backbone
    assert (net.shift, net.shift_place, net.adaptive, net.non_local, net.focus) == NETWORKS[family]
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
