"""Tests of AdaFocus V2 on TSM: figures of the released program, its data and its training stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import golden_weights, runs
from helpers.configs import composed
from helpers.golden_cases import Case

from adafocus import build
from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import fit, from_adafocus_v2_tsm, load_checkpoint, tensors
from adafocus.core.batch import Batch
from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
from adafocus.methods.adafocus_v2.stage import JointStage

SHIFT = Temporal("bidirectional")
RATES = {"policy": 0.01, "glance": 0.5, "focus": 1.0}


def network(classes: int, dropout: float = 0.5) -> AdaFocusV2TSM:
    return AdaFocusV2TSM(
        insert(BACKBONES["mobilenet_v2"](), 8, SHIFT),
        insert(BACKBONES["resnet50"](), 12, SHIFT),
        num_classes=classes,
        glance_segments=8,
        focus_segments=12,
        patch_size=128,
        dropout=dropout,
    )


def inputs(case: str, batch: int) -> torch.Tensor:
    sets = (("glance", 8), ("focus", 12))
    clips = [golden_weights.frames(f"{case}/{n}", (batch, 3 * t, 224, 224)).unflatten(1, (t, 3)) for n, t in sets]
    return torch.cat(clips, 1)


@pytest.mark.slow
def test_evaluation(tmp_path: Path) -> None:
    case = "adafocus_v2_sth_p128"
    golden = Case(case)
    model = network(174).eval()
    torch.save(
        {"epoch": 1, "arch": "resnet50", "state_dict": golden.state()},
        tmp_path / "f.pth.tar",
    )
    assert load_checkpoint(tmp_path / "f.pth.tar", model).source == "official AdaFocus V2 on TSM"
    with torch.no_grad():
        output = model(inputs(case, 2))
    for ours, name in (
        (output.where, "action"),
        (output.logits, "logits"),
        (output.aux_glance, "global_reg_logits"),
        (output.aux_focus, "local_reg_logits"),
    ):
        golden.check(name, ours)


@pytest.mark.slow
def test_training_step() -> None:
    case = "adafocus_v2_trainstep_sth_p128"
    golden = Case(case)
    model = network(20, dropout=0.0)
    fit(model, from_adafocus_v2_tsm(tensors({"state_dict": golden.state()})), case)
    model.double()
    stage = JointStage(model, lambda frames: frames, seed=0, rates=RATES)
    random = golden_weights.array(f"{case}/random_action", (4, 2)).double().sigmoid()[:, None]
    stage.places = lambda choice, _: random if choice == "random" else None
    label = torch.from_numpy(golden["target"])
    stage.train()
    batch = Batch(inputs(case, 4).double(), label[:, None], torch.arange(4), 0, torch.ones(4, dtype=torch.bool))
    result = stage.step(batch)
    result.loss.backward()
    terms = [
        result.metrics[f"loss_{who}_{part}"] for who in ("random", "policy") for part in ("steps", "glance", "focus")
    ]
    golden.check("loss_terms", torch.stack(terms), 1e-5)
    golden.check("loss", result.loss, 1e-5)
    norms = [
        torch.cat([p.grad.flatten() for m in modules for p in m.parameters()]).norm()
        for modules in (
            (model.policy,),
            (model.glance_net, model.glance_head),
            (model.focus_net, model.focus_head),
            (model,),
        )
    ]
    golden.check("grad_norms", torch.stack(norms), 1e-5)
    heads = [model.glance_head.predict, model.glance_head.learn, model.focus_head.predict, model.focus_head.learn]
    norms = [torch.cat([p.grad.flatten() for p in h.parameters()]).norm() for h in heads]
    golden.check("grad_head_norms", torch.stack(norms), 1e-5)


def tiny(*typed: str):
    return composed("backbone=tiny_tsm", "segments.glance=4", "segments.focus=6", *typed)


def test_glance_and_focus_frames_of_drawn_videos() -> None:
    data = build.data(tiny("dataset=glyphs"))
    frames = data.test[-1, 0].frames
    assert len(frames) == 10 and torch.equal(frames[:4], frames[4:][[0, 1, 3, 4]])


def test_both_sets_of_a_video_share_a_crop_unless_asked_otherwise(tmp_path: Path) -> None:
    from helpers import numbered

    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        numbered.write(tmp_path / name / "x.mp4", 2)
    typed = (
        "dataset=folder",
        f"dataset.root={tmp_path}",
        "dataset.frame_size=32",
        "patch=24",
        "dataset.short_videos=first_frame",
    )
    together = build.data(tiny(*typed)).train[0, 0].frames
    assert len(together) == 10 and all(torch.equal(together[0], frame) for frame in together)
    apart = [build.data(tiny(*typed, "dataset.separate_crops=true")).train[epoch, 0].frames for epoch in range(4)]
    assert all(torch.equal(clip[4], clip[9]) for clip in apart) and not all(
        torch.equal(clip[0], clip[4]) for clip in apart
    )


def test_predictions_send_no_gradient_into_the_networks() -> None:
    settings = tiny("dataset=glyphs")
    model = build.model(settings, 5)
    output = model(torch.randn(2, 10, 3, 96, 96))
    output.logits.sum().backward()
    assert all(p.grad is None for part in (model.glance_net, model.focus_net, model.policy) for p in part.parameters())
    assert model.glance_head.predict.weight.grad is not None
    with pytest.raises(ValueError, match="4 glance and 6 focus"):
        model(torch.randn(2, 8, 3, 96, 96))


@pytest.mark.slow
def test_a_run(tmp_path: Path) -> None:
    small = runs.arguments(backbone="tiny_tsm", segments__glance="4", segments__focus="6", schedule__lr="0.001")
    runs.run(tmp_path, *small, "name=a")
    summary = runs.summary(tmp_path / "outputs/a")
    assert [row["name"] for row in summary["rows"]] == [
        "learned patch",
        "constant patch",
        "random patch",
        "center patch",
        "glance alone",
    ]
    assert (tmp_path / "outputs/a/patches.png").is_file()
