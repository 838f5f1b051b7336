"""Tests of TSN, TSM, NL-TSM and TANet: loaded from files in the released layouts, they give the released figures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from torch import Tensor

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert, with_flow_input
from adafocus.checkpoints import fit, from_mmaction2, from_tsm, load_checkpoint, tensors
from adafocus.core.batch import Batch
from adafocus.core.variants import WHOLE_FRAMES
from adafocus.evaluation.cost import count
from adafocus.evaluation.evaluate import answer
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.recognizer.stage import WholeFrames

TSM = Temporal("bidirectional")
TAM = Temporal(adaptive=True)
#: Golden case -> backbone, temporal modules, channels per frame, multiply-adds per clip.
CASES = {
    "tsn_r50_8f": ("resnet50", Temporal(), 3, 32703643648),
    "tsm_r50_8f": ("resnet50", TSM, 3, 32699940864),
    # The case names the option `--shift_place block`, but its keys and its figures are those of blockres.
    "tsm_r50_8f_block": ("resnet50", TSM, 3, 32699940864),
    "tsm_r50_8f_flow": ("resnet50", TSM, 10, 34906570752),
    "tsm_r50_8f_tpool": ("resnet50", Temporal("bidirectional", pool=True), 3, 19493797888),
    "tsm_mobilenetv2_8f_jester": ("mobilenet_v2", TSM, 3, 2396230656),
    "tsm_mobilenetv2_8f_jester_embedded": ("mobilenet_v2", Temporal("bidirectional", place="branch"), 3, 2396230656),
    "tsm_mobilenetv2_8f_k400": ("mobilenet_v2", TSM, 3, 2400050176),
    "nl_tsm_r50_8f_soft": ("resnet50", Temporal("bidirectional", non_local=True), 3, 61104062464),
    "nl_tsm_r50_8f": ("resnet50", Temporal("bidirectional", non_local=True), 3, 61104062464),
    "tanet_r50_8f_k400": ("resnet50", TAM, 3, 32760128512),
    "tanet_r50_8f_sthv1": ("resnet50", TAM, 3, 32756425728),
}


def network(case: str, classes: int) -> Recognizer:
    name, temporal, channels, _ = CASES[case]
    backbone = BACKBONES[name]()
    if channels != 3:
        with_flow_input(backbone, channels)
    return Recognizer(insert(backbone, 8, temporal), num_classes=classes, segments=8)


def scaled(state: dict[str, Tensor], scale: dict[str, float]) -> dict[str, Tensor]:
    for part, factor in scale.items():
        state = {key: value * np.float32(factor) if part in key else value for key, value in state.items()}
    return state


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if "mobilenet" in name else pytest.mark.slow) for name in CASES]
)
def test_evaluation(case: str, tmp_path: Path) -> None:
    golden = Case(case)
    model = network(case, golden.shape("logits")[1]).eval()
    state = scaled(golden.state(), golden.about.get("weight_scale", {}))
    assert len(state) == len(model.state_dict())
    torch.save({"epoch": 50, "arch": "resnet50", "state_dict": state, "best_prec1": 74.0}, tmp_path / "ckpt.pth.tar")
    assert load_checkpoint(tmp_path / "ckpt.pth.tar", model).source == "official TSM or TAM"
    name, spec = next(iter(golden.about["inputs"].items()))
    channels = CASES[case][2]
    seen: dict[str, Tensor] = {}
    if "layer1_pooled" in golden:
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            getattr(model.backbone, layer).register_forward_hook(
                lambda _, __, out, layer=layer: seen.update({f"{layer}_pooled": out.mean((-2, -1))[:, :256]})
            )
    with torch.no_grad():
        output = model(golden_weights.frames(name, spec["shape"]).unflatten(1, (8, channels)))
    # The random weights of this case make its attention nearly one-hot, so rounding has a large effect.
    tolerance = 2e-2 if case == "nl_tsm_r50_8f" else 1e-4
    seen |= {"logits": output.logits, "frame_logits": output.per_frame}
    for key, ours in seen.items():
        golden.check(key, ours, tolerance)


@pytest.mark.parametrize("case", CASES)
def test_costs_of_the_specs(case: str) -> None:
    classes = (
        174
        if case.endswith(("sthv1", "block", "tpool", "r50_8f")) and case not in ("tsn_r50_8f", "nl_tsm_r50_8f")
        else 400
    )
    classes = 27 if "jester" in case else classes
    with torch.device("meta"):
        model = network(case, classes)
    assert count(model, 8, 224, CASES[case][2]).total == CASES[case][3]


@pytest.mark.slow
def test_mmaction2_layout() -> None:
    case = "tanet_mmaction2_r50_8f_sthv1"
    golden = Case(case)
    model = network("tanet_r50_8f_sthv1", 174).eval()
    fit(model, from_mmaction2(tensors({"state_dict": golden.state()})), case)
    clips = golden_weights.frames(f"{case}/clips", (16, 3, 224, 224)).unflatten(0, (2, 8))
    from adafocus.evaluation.metrics import average_views

    with torch.no_grad():
        logits = model(clips).logits
    golden.check("logits", logits)
    golden.check("score", average_views(logits[None], "probabilities").exp())


def test_mmaction2_names_of_shift_and_non_local_blocks() -> None:
    """Keys of NL-TSM in MMAction2's naming become the keys of our network; biases that MMAction2 lacks are zero."""
    with torch.device("meta"):
        model = network("nl_tsm_r50_8f", 400)
    theirs = {}
    for key, value in model.state_dict().items():
        name = key.replace("head.", "cls_head.fc_cls.")
        if name.endswith("nl.W.0.bias"):
            continue
        name = re.sub(r"nl\.(g\.0|phi\.0|theta)\.", r"non_local_block.\1.conv.", name)
        name = name.replace("nl.W.0.", "non_local_block.conv_out.conv.").replace(
            "nl.W.1.", "non_local_block.conv_out.bn."
        )
        name = name.replace("downsample.0.", "downsample.conv.").replace("downsample.1.", "downsample.bn.")
        name = re.sub(r"(?<=\.)conv(\d)\.net\.weight", r"conv\1.conv.net.weight", name)
        name = re.sub(r"(?<=\.)conv(\d)\.weight", r"conv\1.conv.weight", name)
        name = re.sub(r"(?<=\.)bn(\d)\.", r"conv\1.bn.", name)
        theirs[name] = torch.empty(value.shape)
    ours = from_mmaction2(theirs)
    assert set(ours) == set(model.state_dict())
    assert all(ours[key].shape == value.shape for key, value in model.state_dict().items())


@pytest.mark.slow
def test_full_resolution_and_views_of_tanet() -> None:
    """TANet at 256 pixels with three crops of two clips, averaged as evaluation averages views, gives the released
    score."""
    case = "tanet_r50_8f_k400"
    golden = Case(case)
    model = network(case, 400).eval()
    fit(model, from_tsm(tensors({"state_dict": golden.state()})), case)
    stage = WholeFrames(model, lambda frames: frames.movedim(-1, -3))
    views = golden_weights.frames(f"{case}/views", (1, 144, 128, 128)).unflatten(1, (6, 8, 3)).movedim(-3, -1)
    batch = Batch(
        views,
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        -1,
        torch.ones(1, dtype=torch.bool),
    )
    score = answer(stage, batch, torch.device("cpu"), (WHOLE_FRAMES,), "logits", 4)[WHOLE_FRAMES].logits
    with torch.no_grad():
        full = model(golden_weights.frames(f"{case}/full_res", (1, 24, 256, 256)).unflatten(1, (8, 3))).logits
        each = model(views[0].movedim(-1, -3)).logits
    for ours, name in ((score, "video_score"), (full, "full_res_logits"), (each, "view_logits")):
        golden.check(name, ours)
