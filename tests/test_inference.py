"""Programs for backbones: folded BatchNorm and lower precision give the same predictions in all uses of a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed
from helpers.steps import batch_of, settings_of
from torch import nn

from adafocus import build, inference
from adafocus.core.errors import UserError
from adafocus.core.stage import Stage, batch_norms
from adafocus.evaluation import exits, queues
from adafocus.methods.network import passed_exits
from adafocus.runs import job

CASES = ("v1 3", "v1 2 tsm", "v2", "v2 tsm", "uni", "uni tsm", "tsn", "tsm", "tam")


def trained(name: str, *more: str) -> tuple[Stage, torch.Tensor]:
    """A stage whose BatchNorm has statistics and scales as after training, and normalized frames of a clip."""
    settings = settings_of(name, *more)
    network = build.seeded_model(settings, 10, weights=False)
    torch.manual_seed(0)
    for norm in batch_norms(network):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    side = settings.dataset.frame_size
    return build.stage(settings, network.eval()), torch.randn(1, build.frame_plan(settings).clip, 3, side, side)


@pytest.mark.parametrize("name", CASES)
def test_folded_networks_predict_the_same(name: str) -> None:
    stage, example = trained(name)
    batch, variants = batch_of(settings_of(name), 4), stage.variants[:1]
    exact = stage.evaluate(batch, variants)[variants[0]].logits
    norms = [part for net in inference.backbones_of(stage.model).values() for part in net.modules()]
    norms = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]  # TAM has one-dimensional ones of its own
    assert inference.fold_norms(stage.model, example) == len(norms) > 0
    found = inference.agreement(exact, stage.evaluate(batch, variants)[variants[0]].logits)
    assert found.same_class == 1 and found.deviation < 1e-5 and found.clips == 4


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mbv2_tsm", "r50_tsm"])
def test_every_norm_of_a_large_backbone_is_folded(backbone: str) -> None:
    stage, example = trained("tsm", f"backbone={backbone}", "segments.glance=2")
    norms = len(batch_norms(stage.model))
    assert inference.fold_norms(stage.model, example) == norms == {"mbv2_tsm": 52, "r50_tsm": 53}[backbone]
    assert not batch_norms(stage.model)


def test_a_convolution_with_two_readers_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4)})
            self.backbone.norm.running_var.fill_(9.0)

        def forward(self, x: torch.Tensor) -> inference.Agreement:
            maps = self.backbone.conv(x.flatten(0, 1))
            logits = (self.backbone.norm(maps) + maps).mean((-2, -1))
            return type("Output", (), {"logits": logits})()

    with pytest.raises(RuntimeError, match="has changed the logits"):
        inference.fold_norms(Two(), torch.randn(1, 2, 3, 8, 8))


@pytest.mark.parametrize("name", ["v2", "uni", "uni tsm"])
def test_a_walk_uses_the_program(name: str) -> None:
    stage, example = trained(name)
    batch = batch_of(settings_of(name), 4)
    inference.apply(stage.model, inference.Program("bf16", fold_norm=True), example)
    numbers = passed_exits(stage.model.num_exits, 1, glance_exit=stage.model.glance_exit)
    whole = stage.exit_logits(batch)
    assert whole.dtype is torch.float32
    limits = torch.full((len(numbers),), exits.NEVER)
    left = queues.exit_early(stage, [batch], limits, numbers, "confidence", size=len(batch))
    assert inference.agreement(whole[:, -1], left.logits).deviation < 2e-2  # batches of other sizes round differently
    norms = [norm for net in inference.backbones_of(stage.model).values() for norm in batch_norms(net)]
    assert not norms


def test_precision_is_chosen_by_the_device() -> None:
    assert inference.pick_precision("fp16", torch.device("cpu")) == "fp16"
    assert inference.pick_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert str(inference.Program("bf16", True, "compile")) == "bf16, BatchNorm folded, compile"
    assert str(inference.Program(engine="openvino", part="glance")) == "openvino (glance)"
    assert inference.Program().plain and str(inference.Program()) == ""


def test_evaluation_reports_its_program(tmp_path: Path) -> None:
    train, typed = tmp_path / "train", ["evaluate.controls=false", "schedule.epochs=1"]
    train.mkdir()
    assert job.run(train, composed(*runs.arguments(), *typed)) == 0
    evaluated = [*typed, "mode=evaluate", f"checkpoint={train}"]
    for name, more in (("exact", []), ("fast", ["evaluate.precision=bf16", "evaluate.fold_norm=true"])):
        (tmp_path / name).mkdir()
        assert job.run(tmp_path / name, composed(*runs.arguments(), *evaluated, *more)) == 0
    exact, fast, whole = (runs.summary(tmp_path / name) for name in ("exact", "fast", "train"))
    assert exact["score"] == whole["score"] and exact["inference"] is None
    assert fast["protocol"] == f"{exact['protocol']}; bf16, BatchNorm folded"
    assert fast["inference"]["precision"] == "bf16" and fast["inference"]["agreement"]["clips"] == 13
    assert 0 < fast["inference"]["agreement"]["deviation"] < 0.1
    assert abs(fast["score"] - exact["score"]) <= 100 / 13 + 1e-6


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_programs_give_the_same_predictions_for_any_number_of_clips(engine: str) -> None:
    for module in inference.engines.NEEDS[engine]:
        pytest.importorskip(module)
    stage, example = trained("uni tsm")
    one, three = (batch_of(settings_of("uni tsm"), size) for size in (1, 3))
    exact = [stage.exit_logits(batch) for batch in (one, three)]
    inference.apply(stage.model, inference.Program(fold_norm=True, engine=engine, part="glance"), example)
    for batch, logits in zip((one, three), exact, strict=True):
        assert inference.agreement(logits.flatten(0, 1), stage.exit_logits(batch).flatten(0, 1)).deviation < 1e-4
    with pytest.raises(ValueError, match="was made for images"):
        stage.model.glance_net(torch.zeros(4, 3, 8, 8))


def test_programs_that_cannot_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.engines, "find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(UserError, match=r'needs openvino: pip install "adafocus\[openvino\]"'):
        inference.engines.check("openvino", "fp32", torch.device("cpu"))
    with pytest.raises(UserError, match="precision=bf16"):
        inference.engines.check("onnxruntime", "bf16", torch.device("cpu"))
    with pytest.raises(UserError, match="runs on the CPU"):
        inference.engines.check("onnxruntime", "fp32", torch.device("cuda"))
    inference.engines.check("compile", "bf16", torch.device("cuda"))


@pytest.mark.slow
def test_compiled_backbones_predict_the_same() -> None:
    """The only test that compiles for a CPU, with the C++ compiler of the machine."""
    stage, example = trained("v2 tsm")
    batches = [batch_of(settings_of("v2 tsm"), size) for size in (1, 3)]
    exact = [stage.exit_logits(batch) for batch in batches]
    inference.apply(stage.model, inference.Program(fold_norm=True, engine="compile"), example)
    for batch, logits in zip(batches, exact, strict=True):
        assert inference.agreement(logits.flatten(0, 1), stage.exit_logits(batch).flatten(0, 1)).deviation < 1e-4
