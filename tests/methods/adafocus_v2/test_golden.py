"""Tests of AdaFocus V2: loaded from a file in the released layout, it gives the figures of the released program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case

from adafocus.backbones import BACKBONES
from adafocus.checkpoints import fit, from_adafocus_v2, load_checkpoint, tensors
from adafocus.core.batch import Batch
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.stage import JointStage

TRAIN = "adafocus_v2_trainstep_actnet_p96_mbv2"


def network(glance: str, *, classes: int, segments: int, patch: int, dropout: float = 0.2) -> AdaFocusV2:
    return AdaFocusV2(
        BACKBONES[glance](),
        BACKBONES["resnet50"](),
        num_classes=classes,
        segments=segments,
        patch_size=patch,
        glance_size=96 if glance == "resnet50" else None,
        dropout=dropout,
        head_dropout=dropout,
    )


@pytest.mark.slow
@pytest.mark.parametrize("glance", ["mobilenet_v2", "resnet50"])
def test_evaluation(tmp_path: Path, glance: str) -> None:
    name = f"adafocus_v2_actnet_p128_{'mbv2' if glance == 'mobilenet_v2' else 'res50'}"
    golden = Case(name)
    model = network(glance, classes=200, segments=16, patch=128).eval()
    torch.save({"state_dict": golden.state()}, tmp_path / "official.pth.tar")
    report = load_checkpoint(tmp_path / "official.pth.tar", model)
    assert report.source == "official AdaFocus V2" and len(report.dropped) == 4
    frames = golden_weights.frames(f"{name}/frames", (2, 48, 224, 224)).unflatten(1, (16, 3))
    features = {}
    model.focus_net.register_forward_hook(lambda _, __, out: features.update(focus=out.mean((-2, -1)).view(2, 16, -1)))
    model.glance_net.register_forward_hook(
        lambda _, __, out: features.update(glance=out.mean((-2, -1)).view(2, 16, -1))
    )
    with torch.no_grad():
        output = model(frames)
    assert output.frames[0].tolist() == golden["input_order"].tolist()
    golden.check("actions", output.where, 1e-4)
    for ours, theirs in (
        (features["glance"], "global_feat"),
        (features["focus"], "local_feat"),
        (output.aux_glance, "global_logits"),
        (output.aux_focus, "local_logits"),
        (output.steps, "step_logits"),
        (output.logits, "logits"),
        (output.steps.max(-1).values, "step_max_logit"),
    ):
        golden.check(theirs, ours)
    with torch.no_grad():
        lean = model(frames, auxiliary=False)
    assert lean.aux_glance is None and torch.equal(lean.logits, output.logits)


@pytest.mark.slow
def test_training_step() -> None:
    golden = Case(TRAIN)
    model = network("mobilenet_v2", classes=20, segments=8, patch=96, dropout=0.0)
    fit(model, from_adafocus_v2(tensors({"state_dict": golden.state()})), "golden")
    model.double()
    frames = golden_weights.frames(f"{TRAIN}/frames", (2, 24, 224, 224)).unflatten(1, (8, 3)).double()
    target = golden_weights.array(f"{TRAIN}/label", (2, 20)).argmax(1)
    random_where = golden_weights.array(f"{TRAIN}/random_action", (16, 2)).double().sigmoid().view(2, 8, 2)
    stage = JointStage(  # frames are normalized in processing order
        model,
        lambda _: frames[:, model.order],
        seed=0,
        rates={"policy": 0.1, "glance": 0.5, "focus": 1.0, "classifier": 5.0},
    )
    stage.places = lambda choice, batch: None if choice == "learned" else random_where
    kept = {}

    def keep_where(_module, _inputs, output) -> None:
        output[0].retain_grad()
        kept["where"] = output[0]

    model.policy.register_forward_hook(keep_where)
    stage.train()
    clip = torch.zeros(2, 8, 1, 1, 3, dtype=torch.uint8)
    result = stage.step(Batch(clip, target[:, None], torch.arange(2), 0, torch.ones(2, dtype=torch.bool)))
    result.loss.backward()
    terms = [result.metrics[f"loss_{a}_{b}"] for a in ("policy", "random") for b in ("steps", "glance", "focus")]
    golden.check("loss_terms", torch.stack(terms), 1e-5)
    golden.check("loss", result.loss, 1e-5)
    golden.check("actions", kept["where"], 1e-5)
    golden.check("actions_grad", kept["where"].grad, 1e-5)
    norms = [torch.cat([p.grad.flatten() for p in group.parameters]).norm() for group in stage.param_groups()]
    golden.check("grad_norms", torch.stack(norms), 1e-5)
    bn = {"policy_stn.encoder.1": model.policy.encoder[1], "local_CNN.bn1": model.focus_net.bn1}
    assert (
        [int(m.num_batches_tracked) for m in (bn["policy_stn.encoder.1"], model.focus_net.bn1, model.classifier.norm)]
        == [int(count) for count in golden["bn_counts"]]
        == [1, 2, 2]
    )
