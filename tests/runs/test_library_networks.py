"""Networks of timm through a whole run, in this process and without downloads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

import adafocus
from adafocus import build, cli, predict
from adafocus.backbones import library
from adafocus.commands.export import export
from adafocus.data.loader import Loader, TrainOrder
from adafocus.training.trainer import Trainer

pytest.importorskip("timm")

TYPED = [
    *runs.arguments(dataset__train_videos="16", dataset__val_videos="5", schedule__epochs="2", inline="true"),
    "segments.glance=4",
    "backbone.glance_size=32",
    "backbone.glance=timm/test_efficientnet",
    "backbone.focus=timm/test_vit",
    "backbone.weights=none",
    "evaluate.controls=false",
    "evaluate.examples=0",
]


def test_a_run_is_interrupted_continued_predicts_exports_and_exits_early(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([*TYPED, "name=whole"]) == 0, capfd.readouterr().err
    step, done = Trainer._step, []

    def interrupted(self: Trainer, *arguments: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(0)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    assert cli.run([*TYPED, "name=parts", "output.save_seconds=0"]) == 130
    monkeypatch.setattr(Trainer, "_step", step)
    assert cli.run([*TYPED, "name=parts", "output.save_seconds=0"]) == 0, capfd.readouterr().err
    whole = tmp_path / "outputs/whole"
    runs.same(tmp_path / "outputs/parts", whole)

    state = torch.load(whole / "last.pt", weights_only=True)
    assert state["config"]["dataset"]["mean"] is None and "focus_net.mean" in state["model"]
    predictor = predict.load(whole, device="cpu")
    frames = torch.randint(0, 255, (6, 32, 32, 3), dtype=torch.uint8)
    assert len(predictor(frames).scores) == len(predictor.classes)
    assert predictor.cost > 0
    described = export(predictor, tmp_path / "programs")
    assert [program["name"] for program in described["programs"]] == ["glance", "policy", "focus"]
    assert described["input"]["mean"] == [0.485, 0.456, 0.406]
    early = ["mode=early_exit", f"checkpoint={whole}", "early_exit.budgets=[1]", "name=early"]
    assert cli.run([*early, "device=cpu", "loader.workers=0", "inline=true"]) == 0, capfd.readouterr().err
    assert (tmp_path / "outputs/early/early_exit.csv").is_file()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["backbone.focus=timm/test_vitt"], "did you mean timm/test_vit"),
        (["patch.size=20"], "should be divisible by patch size"),
        (
            ["backbone.focus=resnet18", "+backbone.focus_options.x=1"],
            "a network of timm, torchvision or a plug-in",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(typed: list[str], says: str, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.run([*TYPED, *typed]) == 2
    printed = capfd.readouterr().err
    assert says in printed and printed.count("\n") == 1 and not list(tmp_path.iterdir())


def test_no_network_connection_is_said_before_a_folder_is_made(tmp_path: Path, monkeypatch, capfd) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "urlopen", unreachable)
    monkeypatch.setattr(library, "_in_cache", lambda which: False)
    assert cli.run([*TYPED, "backbone.weights=imagenet"]) == 2
    printed = capfd.readouterr().err
    assert "cannot be fetched from https://huggingface.co/timm/test_efficientnet" in printed
    assert printed.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "typed",
    [
        ["method=recognizer", "backbone.shift=online", "backbone.focus=timm/test_resnet"],
        ["method=recognizer", "backbone.adaptive=true", "backbone.focus=timm/test_convnext"],
        [
            "backbone.shift=bidirectional",
            "backbone.focus=timm/test_resnet",
            "backbone.glance=timm/test_convnext",
            "backbone.glance_size=null",
        ],
        ["method=uni_adafocus", "backbone.focus=timm/test_resnet", "patch.smallest=16"],
        [
            "method=adafocus_v1",
            "stage=1",
            "init.from=none",
            "backbone.focus=timm/test_vit",
            "backbone.glance=timm/test_resnet",
        ],
    ],
)
def test_every_method_learns_with_them(typed: list[str]) -> None:
    own = "method=recognizer" in typed
    replaced = {word.partition("=")[0] for word in typed} | {"inline", "evaluate.controls"}
    fixed = [word for word in TYPED if word.partition("=")[0] not in replaced]
    plain = not own and "backbone.shift=bidirectional" not in typed
    kept = [word for word in fixed if not (own and word.startswith(("patch", "backbone.glance=")))]
    kept = [word for word in kept if plain or not word.startswith("backbone.glance_size")]
    settings = composed(*kept, *typed)
    data = build.data(settings)
    network = build.seeded_model(settings, len(data.classes))
    stage = build.stage(settings, network)
    stage.train()
    result = stage.step(next(iter(Loader(data.train, TrainOrder(4, 4)))))
    result.loss.backward()
    assert result.loss.isfinite()
    parts = ("focus_net.", "glance_net.", "backbone.") if "stage=1" not in typed else ("focus_net.",)
    trained = [parameter for name, parameter in network.named_parameters() if name.startswith(parts)]
    assert trained and all(parameter.grad is not None for parameter in trained)


def test_weights_of_a_file_start_a_run(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    whole = timm.create_model("test_vit")
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    settings = composed(*[word for word in TYPED if "weights" not in word and "inline" not in word])
    settings.backbone.weights, settings.backbone.glance_weights = str(tmp_path / "model.safetensors"), "none"
    network = build.seeded_model(settings, 4)
    loaded = network.focus_net.layers.blocks[0].attn.qkv.weight
    assert torch.equal(loaded, whole.blocks[0].attn.qkv.weight)
    settings.backbone.focus = "timm/test_resnet"
    with pytest.raises(adafocus.UserError, match="is a checkpoint of another model"):
        build.seeded_model(settings, 4)
