"""Tests that parameter groups, partial BN and training steps of recognizers equal those of the released programs."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from torch import nn

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import fit, from_tsm, tensors
from adafocus.core.batch import Batch
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.recognizer.param_groups import recognizer_groups
from adafocus.methods.recognizer.stage import WholeFrames
from adafocus.training.lr_schedule import learning_rates
from adafocus.training.optimizer import make_optimizer
from adafocus.training.settings import Settings

OURS = {"norm": "BN scale/shift", "head_weight": "lr5_weight", "head_bias": "lr10_bias"}


def network(backbone: str, temporal: Temporal, *, classes: int, segments: int) -> Recognizer:
    return Recognizer(
        insert(BACKBONES[backbone](), segments, temporal), num_classes=classes, segments=segments, dropout=0.0
    )


def names(stage: WholeFrames) -> dict[str, tuple[float, float, set[str]]]:
    found = {id(p): key for key, p in stage.model.named_parameters()}
    return {g.name: (g.rate, g.decay, {found[id(p)] for p in g.parameters}) for g in stage.param_groups()}


def ours(keys: list[str]) -> set[str]:
    return set(from_tsm({key.removeprefix("module."): torch.empty(0) for key in keys}))


@pytest.mark.parametrize(
    ("case", "backbone", "temporal"),
    [
        ("tsm_r50_npb_imagenet", "resnet50", Temporal("bidirectional")),
        ("tsm_r50_pbn_new_dataset", "resnet50", Temporal("bidirectional")),
        ("tsm_r50_pbn_same_dataset", "resnet50", Temporal("bidirectional")),
        ("nl_tsm_r50_npb", "resnet50", Temporal("bidirectional", non_local=True)),
        ("nl_tsm_r50_pbn", "resnet50", Temporal("bidirectional", non_local=True)),
        ("tsm_mobilenetv2_npb", "mobilenet_v2", Temporal("bidirectional")),
    ],
)
def test_groups_of_tsm(case: str, backbone: str, temporal: Temporal) -> None:
    table = Case("tsm_optimizer_groups").about["param_groups"][case]
    options = table["options"]
    with torch.device("meta"):
        model = network(backbone, temporal, classes=10, segments=8)
    stage = WholeFrames(
        model,
        nn.Identity(),
        groups="tsm",
        head_rate=5.0 if options["fc_lr5"] else 1.0,
        norms="partial" if options["partial_bn"] else "all",
    )
    found = names(stage)
    golden = {g["name"]: (g["lr_mult"], g["decay_mult"], ours(g["keys"])) for g in table["groups"]}
    for name, (rate, decay, keys) in found.items():
        expected = golden[OURS.get(name, name)][2]
        # The released code leaves the norms of non-local blocks (".nl.") out of all groups; here they are trained.
        if case == "nl_tsm_r50_pbn" and name == "norm":
            assert {key for key in keys if ".nl." in key} and {key for key in keys if ".nl." not in key} == expected
            continue
        # The released head is then in the normal groups, with the same learning rate.
        if not options["fc_lr5"] and name.startswith("head"):
            assert keys <= golden[name.replace("head", "normal")][2]
            assert (rate, decay) == golden[name.replace("head", "normal")][:2]
            continue
        if not options["fc_lr5"] and name.startswith("normal"):
            expected = expected - {"head.weight", "head.bias"}
        assert keys == expected, name
        assert not keys or (rate, decay) == golden[OURS.get(name, name)][:2], name


def test_groups_of_tam() -> None:
    table = Case("tanet_train_step").about["param_groups"]
    with torch.device("meta"):
        model = network("resnet50", Temporal(adaptive=True), classes=10, segments=8)
    found = names(WholeFrames(model, nn.Identity(), groups="tsm"))
    golden = {g["name"]: (g["lr_mult"], g["decay_mult"], ours(g["parameters"])) for g in table}
    for name, (rate, decay, keys) in found.items():
        assert keys == golden[OURS.get(name, name)][2], name
        assert not keys or (rate, decay) == golden[OURS.get(name, name)][:2], name


def test_mmaction2_speeds_up_the_classifier_only_and_flow_the_first_convolution() -> None:
    with torch.device("meta"):
        model = network("tiny_focus", Temporal(adaptive=True), classes=10, segments=4)
    groups = {g.name: g for g in recognizer_groups(model, "mmaction2", flow=True)}
    assert [p.shape for p in groups["head_weight"].parameters] == [model.head.weight.shape]
    assert groups["first_conv_weight"].rate == 5.0 and groups["head_bias"].rate == 10.0
    counted = sum(len(g.parameters) for g in groups.values())
    assert counted == len(list(model.parameters()))


def test_rates_of_the_released_schedules() -> None:
    golden = Case("tsm_optimizer_groups")
    for name, rate, shape, milestones, epochs in (
        ("step_20_40_of_50", 0.02, "step", (20, 40), 50),
        ("step_10_20_of_25", 0.001, "step", (10, 20), 25),
        ("cos_of_50", 0.01, "cosine", (), 50),
    ):
        rates = learning_rates(
            rate=rate, epochs=epochs, steps_per_epoch=3, shape=shape, milestones=milestones, per_epoch=True
        )
        assert np.allclose(rates[::3], golden[name][:, 0], rtol=1e-6) and np.allclose(
            5 * rates[::3], golden[name][:, 4]
        )


def step(
    stage: WholeFrames, optimizer: torch.optim.Optimizer, frames: torch.Tensor, label: torch.Tensor, rate: float
) -> tuple:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    stage.train()
    index = torch.arange(len(label))
    result = stage.step(Batch(frames, label[:, None], index, 0, torch.ones(len(label), dtype=torch.bool)))
    result.loss.backward()
    norm = nn.utils.clip_grad_norm_(stage.model.parameters(), 20.0)
    optimizer.step()
    optimizer.zero_grad()
    return result.loss.item(), norm.item()


def settings(decay: float) -> Settings:
    return Settings(1, 2, np.zeros(2), 0, weight_decay=decay)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "backbone", "norms"), [("r50_pbn", "resnet50", "partial"), ("mbv2_npb", "mobilenet_v2", "all")]
)
def test_training_steps_of_tsm(setup: str, backbone: str, norms: str) -> None:
    golden = Case("tsm_train_step")
    model = network(backbone, Temporal("bidirectional"), classes=11, segments=4)
    fit(model, from_tsm(tensors({"state_dict": golden.state(golden.about["keys_by_setup"][setup])})), setup)
    stage = WholeFrames(model.double(), lambda x: x, groups="tsm", norms=norms)
    optimizer = make_optimizer(stage, settings(5e-4))
    for number in range(2):
        name = f"tsm:train:{setup}:{number}"
        frames = golden_weights.frames(name, (4, 12, 96, 96)).double().unflatten(1, (4, 3))
        label = (golden_weights.array(f"{name}:label", (4,)).abs() * 1000).long() % 11
        found = step(stage, optimizer, frames, label, 0.01)
        assert np.allclose(found, golden[f"{setup}_loss_norm"][number], rtol=1e-5)
        state = model.state_dict()
        prefix = f"{setup}_step{number}_"
        for key in (k for k in golden if k.startswith(prefix)):
            (mine,) = from_tsm({key.removeprefix(prefix): torch.empty(0)})
            golden.check(key, state[mine].flatten()[:512], 1e-5)


@pytest.mark.slow
def test_training_steps_of_tam() -> None:
    golden = Case("tanet_train_step")
    model = network("resnet50", Temporal(adaptive=True), classes=10, segments=8)
    fit(model, from_tsm(tensors({"state_dict": golden.state()})), "tanet")
    stage = WholeFrames(model.double(), lambda x: x, groups="tsm")
    optimizer = make_optimizer(stage, settings(1e-4))
    inputs = [name for name, spec in golden.about["inputs"].items() if spec["kind"] == "image"]
    label = torch.from_numpy(golden["target"])
    for number in range(2):
        name = inputs[number % len(inputs)]
        frames = golden_weights.frames(name, golden.about["inputs"][name]["shape"]).double().unflatten(1, (8, 3))
        loss, norm = step(stage, optimizer, frames, label, 0.01)
        assert np.isclose(loss, golden["loss"][number], rtol=1e-5) and np.isclose(
            norm, golden["grad_norm"][number], rtol=1e-5
        )
        state = model.state_dict()
        prefix = f"step{number + 1}:"
        for key in (k for k in golden if k.startswith(prefix)):
            name = key.removeprefix(prefix)
            mine = next(
                iter(
                    set(from_tsm({name: torch.empty(0), "base_model.layer1.0.tam.L.0.weight": torch.empty(0)}))
                    - {"backbone.layer1.0.conv2.tam.L.0.weight"}
                ),
                "backbone.layer1.0.conv2.tam.L.0.weight",
            )
            golden.check(key, state[mine].flatten()[: math.prod(golden.shape(key))])


def test_partial_norm_keeps_statistics_and_scales() -> None:
    torch.manual_seed(0)
    model = network("tiny_focus", Temporal("bidirectional", div=4), classes=3, segments=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stage = WholeFrames(model, lambda x: x, groups="tsm", norms="partial")
    step(stage, make_optimizer(stage, settings(1e-4)), torch.randn(4, 2, 3, 16, 16), torch.tensor([0, 1, 2, 0]), 0.1)
    same = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    norms = {key for key in before if re.match(r"backbone\.layers\.[147]\.", key)}
    assert {key for key in norms if not key.startswith("backbone.layers.1.")} <= same
    assert not {key for key in norms if key.startswith("backbone.layers.1.")} & same
