"""Tests of `init.from`: which weights of another run or file are taken, which are dropped, and the report of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import runs

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import load_start, start_from
from adafocus.core.errors import UserError
from adafocus.methods.recognizer.model import Recognizer


def network(temporal: Temporal, classes: int) -> Recognizer:
    return Recognizer(insert(BACKBONES["resnet18"](), 4, temporal), num_classes=classes, segments=4)


def test_another_head_is_dropped_and_temporal_modules_come_and_go() -> None:
    torch.manual_seed(0)
    tsm = network(Temporal("bidirectional"), 10)
    state = {key: torch.full_like(value, 2) for key, value in tsm.state_dict().items()}
    report = start_from(network(Temporal(), 7), state, "file")
    assert report.missing == ["head.weight", "head.bias"] == report.dropped
    tam = network(Temporal(adaptive=True), 10)
    report = start_from(tam, state, "file")
    assert report.dropped == [] and all(".tam." in key for key in report.missing) and len(report.missing) == 8 * 12
    assert (tam.backbone.layer1[0].conv2.net.weight == 2).all() and (tam.head.bias == 2).all()
    assert "64 missing" not in str(
        report
    ) and "missing and left as initialized (backbone.layer1.0.conv2.tam.G.0.weight" in str(report)


def test_an_official_file_starts_another_data_set(tmp_path: Path) -> None:
    from helpers.official import official_key

    model = network(Temporal("bidirectional"), 400)
    torch.save(
        {"state_dict": {official_key(k, "tsm"): v for k, v in model.state_dict().items()}}, tmp_path / "k400.pth"
    )
    ours = network(Temporal("bidirectional"), 101)
    report = load_start(tmp_path / "k400.pth", ours)
    assert report.dropped == ["head.weight", "head.bias"]
    assert torch.equal(ours.backbone.conv1.weight, model.backbone.conv1.weight)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    other = Recognizer(BACKBONES["tiny_focus"](), num_classes=3, segments=2).state_dict()
    with pytest.raises(UserError, match="another network.*dropped"):
        start_from(network(Temporal(), 3), other, "file")


@pytest.mark.slow
def test_a_run_starts_from_a_run_and_is_resumed_without_it(tmp_path: Path) -> None:
    small = runs.arguments(
        method="recognizer", backbone="tiny_tsm", segments="4", dataset__task="motion", schedule__epochs="2"
    )
    runs.run(tmp_path, *small, "name=first", "dataset.classes=4")
    first = torch.load(tmp_path / "outputs/first/last.pt", weights_only=True)["model"]
    typed = [*small, "name=second", "dataset.classes=6", "init.from=outputs/first", "schedule.lr=1e-9"]
    output = runs.run(tmp_path, *typed)
    assert "start from outputs/first/last.pt" in output and "2 missing" in output and "2 dropped" in output
    second = torch.load(tmp_path / "outputs/second/last.pt", weights_only=True)["model"]
    key = "backbone.layers.3.net.weight"
    assert torch.allclose(first[key], second[key], atol=1e-5) and second["head.weight"].shape[0] == 6
    output = runs.run(tmp_path, *small, "name=third", "dataset.classes=6", "init.from=outputs/nowhere", expect=2)
    assert "nowhere" in output and "Traceback" not in output
    shutil.rmtree(tmp_path / "outputs/first")
    assert "this run is finished" in runs.run(tmp_path, *typed)


@pytest.mark.slow
def test_training_validates_with_one_view_and_ends_with_the_protocol(tmp_path: Path) -> None:
    """On class folders of video files with the dense 30-view protocol, validation uses one view and the final score 30;
    the run can then be evaluated with another protocol."""
    from helpers import numbered

    for label, first in (("low", 0), ("high", 100)):
        (tmp_path / f"videos/{label}").mkdir(parents=True)
        for number in range(6):
            numbered.write(tmp_path / f"videos/{label}/{first + number}.mp4", 20 + number)
    typed = [
        "dataset=folder",
        f"dataset.root={tmp_path / 'videos'}",
        "dataset.fit=crop",
        "dataset.frame_size=32",
        "dataset.decode_short_side=null",
        "method=recognizer",
        "backbone=tiny_tsm",
        "segments=4",
        "schedule.epochs=2",
        "schedule.batch_size=4",
        "schedule.base_batch_size=4",
        "schedule.evaluate_every=1",
        "loader.workers=0",
        "output.loggers=[]",
        "device=cpu",
    ]
    runs.run(tmp_path, *typed, "protocol=tsm_dense_30view", "name=dense")
    summary = runs.summary(tmp_path / "outputs/dense")
    assert summary["protocol"] == "tsm_dense_30view: dense-10 frames of 64, 10 clips, 3 crops, 36 of 36, mean of logits"
    evaluated = [line for line in runs.lines(tmp_path / "outputs/dense") if line["kind"] == "evaluate"]
    assert len(evaluated) == 2
    runs.run(tmp_path, "mode=evaluate", "checkpoint=outputs/dense", "protocol=mmaction2_twice_6view", "name=other")
    assert runs.summary(tmp_path / "outputs/other")["protocol"].startswith(
        "mmaction2_twice_6view: twice frames, 2 clips, 3 flush"
    )


@pytest.mark.parametrize("form", ["plain", "tsm"])
def test_single_networks_start_from_files_of_recognizers(form: str, tmp_path: Path) -> None:
    """Stage 1 of AdaFocus V1 starts from two files of recognizers: TSM checkpoints, or the stages glance and focus."""
    from helpers.configs import composed

    from adafocus import build
    from adafocus.checkpoints import load_start

    typed = ("backbone=tiny_tsm", "segments.focus=6") if form == "tsm" else ()
    settings = composed("method=adafocus_v1", "stage=1", "init.from=none", *typed)
    network = build.seeded_model(settings, 10, weights=False)
    files = {}
    for part, segments in (("glance", 4), ("focus", 6)):
        temporal = Temporal("bidirectional", div=4) if form == "tsm" else Temporal()
        channels = settings.backbone.glance_channels if part == "glance" else settings.backbone.focus_channels
        backbone = insert(BACKBONES["tiny_focus"](channels), segments, temporal)
        recognizer = Recognizer(backbone, num_classes=10, segments=segments)
        torch.save({"model": recognizer.state_dict()}, tmp_path / f"{part}.pt")
        files[part] = recognizer
        report = load_start(tmp_path / f"{part}.pt", network, part)
        assert report.missing == [] and report.loaded >= len(backbone.state_dict())
    for part, recognizer in files.items():
        own = getattr(network, f"{part}_net").state_dict()
        assert all(torch.equal(own[key], value) for key, value in recognizer.backbone.state_dict().items())
    head = network.glance_head if form == "tsm" else network.glance_head[1]
    assert torch.equal(head.weight, files["glance"].head.weight)
    local = network.classifier if form == "tsm" else network.focus_head
    assert torch.equal(local.weight, files["focus"].head.weight)
    with pytest.raises(UserError, match="does not contain the focus network"):
        load_start(tmp_path / "glance.pt", network, "focus")
