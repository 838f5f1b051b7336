"""Tests of `identify`: the options that a checkpoint file determines, those that it leaves open, and that no code in a
file is executed."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import golden_weights, numbered, runs
from helpers.configs import composed
from helpers.golden_cases import Case, flat
from helpers.official import official, official_key, official_uni

import adafocus
from adafocus import build, config
from adafocus.checkpoints import detect, load_file, tensors
from adafocus.checkpoints.identify import Identity, identify
from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.core.versions import current_state

#: Golden case -> options that its checkpoint determines, options that it leaves open.
CASES = {
    "adafocus_v1_actnet_p128": ({"method": "adafocus_v1", "backbone": "mbv2_r50"}, {"patch", "dataset"}),
    "adafocus_v1_sthsth_p144": ({"method": "adafocus_v1", "backbone": "mbv2_r50_tsm"}, {"patch", "dataset"}),
    "adafocus_v2_actnet_p128_mbv2": (
        {"method": "adafocus_v2", "backbone": "mbv2_r50", "segments.glance": "16", "backbone.policy_hidden": "2048"},
        {"patch", "dataset"},
    ),
    "adafocus_v2_actnet_p128_res50": ({"backbone": "r50_r50"}, {"patch", "dataset"}),
    "adafocus_v2_sth_p128": (
        {"method": "adafocus_v2", "backbone": "mbv2_r50_tsm", "segments.glance": "8"},
        {"patch", "dataset"},
    ),
    "uni_adafocus_actnet_p128": (
        {"method": "uni_adafocus", "backbone": "mbv2_r50", "segments.glance": "16", "segments.focus": "16"},
        {"patch", "dataset"},
    ),
    "uni_adafocus_tsm_sthv1_p96_8and8": (
        {"method": "uni_adafocus", "backbone": "mbv2_r50_tsm"},
        {"patch", "segments", "dataset"},
    ),
    "tsn_r50_8f": ({"backbone": "r50_tsn", "dataset": "kinetics400"}, {"segments"}),
    "tsm_r50_8f": ({"backbone": "r50_tsm"}, {"segments", "dataset"}),
    "tsm_r50_8f_flow": ({"backbone": "r50_tsm", "dataset.modality": "flow", "dataset": "kinetics400"}, {"segments"}),
    "tsm_mobilenetv2_8f_jester": ({"backbone": "mbv2_tsm", "dataset": "jester"}, {"segments"}),
    "tsm_mobilenetv2_8f_jester_embedded": ({"backbone": "mbv2_tsm_branch", "dataset": "jester"}, {"segments"}),
    "tsm_mobilenetv2_8f_k400": ({"backbone": "mbv2_tsm", "dataset": "kinetics400"}, {"segments"}),
    "nl_tsm_r50_8f": ({"backbone": "r50_nl_tsm", "dataset": "kinetics400"}, {"segments"}),
    "tsm_online_mobilenetv2": ({"backbone": "mbv2_tsm_online", "dataset": "jester"}, set()),
    "tanet_r50_8f_k400": ({"backbone": "r50_tam", "segments.glance": "8", "dataset": "kinetics400"}, set()),
    "tanet_r50_8f_sthv1": ({"backbone": "r50_tam", "segments.glance": "8"}, {"dataset"}),
    "tanet_mmaction2_r50_8f_sthv1": ({"backbone": "r50_tam", "segments.glance": "8"}, {"dataset"}),
}
ANSWERS = {"patch": "128", "dataset": None, "segments": None}


@pytest.mark.parametrize("case", CASES)
def test_what_a_released_file_says(tmp_path: Path, case: str) -> None:
    """A file in the layout of the released programs (nested, `module.` prefix, extra entries) is identified, and the
    network that is built from the answer has its keys and shapes."""
    known, open_ = CASES[case]
    keys = dict(flat(Case(case).about["keys"]))
    content = released(keys)
    torch.save(content, tmp_path / "x.pth.tar")
    state = tensors(load_file(tmp_path / "x.pth.tar"))
    identity = identify(detect(state), state)
    assert known.items() <= identity.said.items(), identity.said
    assert set(identity.open) == open_
    with pytest.raises(UserError) if open_ else nothing() as caught:
        identity.overrides(())
    for key in open_:
        assert f"{key}={'|'.join(identity.open[key])}" in str(caught.value)
    typed = {key: options[0] for key, options in identity.open.items()}
    arguments = [*identity.overrides(typed), *(f"{key}={value}" for key, value in typed.items())]
    settings = composed(*arguments, "dataset.root=.", "backbone.weights=none", "mode=evaluate", "checkpoint=x")
    with torch.device("meta"):
        model = build.model(settings, identity.classes, weights=False)
    from adafocus.checkpoints import SOURCES

    ours = current_state(SOURCES[detect(state)].convert(state))
    names = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    assert names == {key for key in ours if not key.endswith("num_batches_tracked")}
    assert all(ours[key].shape == model.state_dict()[key].shape for key in names)


def released(keys: dict[str, list[int]]) -> dict[str, object]:
    """The content of a file as the released programs save it: V1 stores one section per network, the others a nested
    state dictionary."""
    state = {key: torch.zeros(()).expand(tuple(shape)) for key, shape in keys.items()}
    sections = {key.partition(".")[0] for key in keys}
    if sections <= {"glancer", "focuser", "fc", "policy"}:
        parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in sections}
        for key, value in state.items():
            name, _, rest = key.partition(".")
            parts[name][rest] = value
        return {**parts, "epoch": 3, "acc": torch.tensor(1.0), "optimizer": None}
    return {"epoch": 3, "arch": "resnet50", "state_dict": state, "best_prec1": np.float64(51.25)}


class nothing:  # noqa: N801 - a context manager that does nothing
    value = ""

    def __enter__(self) -> nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def test_old_files_with_numbers_of_numpy_and_options_of_their_program(tmp_path: Path) -> None:
    content = {
        "state_dict": {"module.new_fc.weight": torch.ones(3, 2)},
        "best_prec1": np.float64(12.5),
        "scores": np.arange(3, dtype=np.float32),
        "args": argparse.Namespace(lr=0.1, arch="resnet50"),
        "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9).state_dict(),
    }
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        read = load_file(tmp_path / name)
        assert float(read["best_prec1"]) == 12.5 and read["args"].arch == "resnet50"
        assert torch.equal(tensors(read)["new_fc.weight"], torch.ones(3, 2))


class Malicious:
    def __init__(self, path: Path, module: str) -> None:
        self.path, self.module = path, module

    def __reduce__(self):
        if self.module == "os":
            import os

            return os.system, (f"touch {self.path}",)
        return eval, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("module", ["os", "builtins"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_would_run_code_are_refused(
    tmp_path: Path, module: str, zipped: bool, capsys: pytest.CaptureFixture
) -> None:
    trap, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    torch.save(
        {"state_dict": {"a": torch.ones(1)}, "best": Malicious(trap, module)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert main(["predict", str(path), "clip.mp4"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "refused" in printed and not trap.exists()
    with open(tmp_path / "bare.pth", "wb") as file:
        pickle.dump(Malicious(trap, module), file)
    assert main(["convert", str(tmp_path / "bare.pth"), str(tmp_path / "x.safetensors")]) == 2
    assert not trap.exists()


def uni_file(path: Path, classes: int = 27) -> None:
    settings = composed("experiment=uni_adafocus_jester_p128_8and12", "dataset.root=.", "backbone.weights=none")
    model = build.seeded_model(settings, classes, weights=False)
    torch.save({"epoch": 1, "state_dict": official_uni(model, tsm=True)}, path)


def test_a_prediction_from_a_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    uni_file(tmp_path / "jester.pth.tar")
    clip = numbered.write(tmp_path / "clip.mp4", 20)
    assert main(["predict", str(tmp_path / "jester.pth.tar"), str(clip)]) == 2
    said = capsys.readouterr().err
    assert "uni_adafocus with 27 classes" in said and "patch=96|128, segments=8+8|8+12|8+16" in said
    predictor = adafocus.load(tmp_path / "jester.pth.tar", "patch=96", "segments=8+8", device="cpu")
    assert predictor.report.source == "official Uni-AdaFocus-TSM"
    found = predictor(clip)
    assert len(found.frames) == 8 and len(found.labels) == 27 and found.cost > 8e9


def test_conversion_needs_no_other_word_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    uni_file(tmp_path / "jester.pth.tar")
    clip = numbered.write(tmp_path / "clip.mp4", 20)
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(f"gesture {n}" for n in range(27)))
    out = tmp_path / "ours.safetensors"
    command = ["convert", str(tmp_path / "jester.pth.tar"), "patch=96", "segments=8+8", str(out)]
    assert main([*command, "--classes", str(classes)]) == 0
    assert "official Uni-AdaFocus-TSM" in capsys.readouterr().out
    assert load_file(out)["classes"][3] == "gesture 3"
    before = adafocus.load(tmp_path / "jester.pth.tar", "patch=96", "segments=8+8", device="cpu")(clip)
    after = adafocus.load(out, device="cpu")(clip)
    assert after.logits == pytest.approx(before.logits, abs=1e-5) and after.labels[0].startswith("gesture")
    assert main(["convert", str(out), "x.pt"]) == 2 and ".safetensors" in capsys.readouterr().err


def v1_file(path: Path, *typed: str, policy: bool = True, classes: int = 21) -> None:
    """Writes a checkpoint in the layout of the released program of AdaFocus V1: one section per network, and no policy
    if it was saved before stage 2."""
    settings = composed("method=adafocus_v1", "backbone=mbv2_r50", "dataset=folder", "dataset.root=.", *typed)
    state = build.seeded_model(settings, classes, weights=False).state_dict()
    sections: dict[str, dict[str, torch.Tensor] | None] = {"glancer": {}, "focuser": {}, "fc": {}, "policy": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "glance_net":
            sections["glancer"]["net." + rest.replace("layers.", "features.", 1)] = value
        elif part == "focus_net":
            sections["focuser"]["net." + rest] = value
        elif part in ("glance_head", "focus_head"):
            name = "glancer" if part == "glance_head" else "focuser"
            rest = rest.removeprefix("1.")
            sections[name][f"net.{'classifier.1' if name == 'glancer' else 'fc'}.{rest}"] = value
        elif part == "classifier":
            sections["fc"][rest.replace("head.", "fc.")] = value
        else:
            name, _, leaf = rest.partition(".")
            if name == "encoder" and not settings.policy.convolution:
                leaf = f"{int(leaf[0]) - 1}{leaf[1:]}"
            leaf = f"0.{leaf}" if name in ("actor", "critic") else leaf
            sections["policy"][f"{name.replace('encoder', 'state_encoder')}.{leaf}"] = value
    torch.save({**sections, "policy": sections["policy"] if policy else None, "epoch": 1}, path)


V1 = (
    "patch.size=112",
    "segments.glance=4",
    "dataset.frame_size=224",
    "backbone.policy_hidden=32",
    "backbone.classifier_width=64",
)


def test_v1_files_of_own_classes_without_convolution_and_with_any_patch(tmp_path: Path) -> None:
    typed = ("policy.grid=5", "policy.convolution=false", "dataset.fit=crop")
    v1_file(tmp_path / "v1.pth.tar", *V1, *typed)
    predictor = adafocus.load(tmp_path / "v1.pth.tar", "patch.size=112", "segments.glance=4", device="cpu")
    settings = predictor.settings
    assert settings.policy.grid == 5 and not settings.policy.convolution and settings.patch.size == 112
    assert len(predictor.classes) == 21 and predictor.stage.name == "3"
    assert len(predictor(numbered.write(tmp_path / "clip.mp4", 20)).boxes) == 4


def test_v1_files_of_stage_1_say_so_and_load_with_random_patches(tmp_path: Path) -> None:
    v1_file(tmp_path / "v1.pth.tar", *V1, policy=False)
    state = tensors(load_file(tmp_path / "v1.pth.tar"))
    assert identify(detect(state), state).said["stage"] == "1"
    typed = ("patch.size=112", "segments.glance=4", "backbone.policy_hidden=32")
    predictor = adafocus.load(tmp_path / "v1.pth.tar", *typed, device="cpu")
    assert predictor.stage.variants[0].where == "random" and "missing that are not needed (policy." in str(
        predictor.report
    )
    with pytest.raises(UserError, match="stage 1 of AdaFocus V1 and has no policy: evaluate it with stage=1"):
        adafocus.load(tmp_path / "v1.pth.tar", *typed, "stage=3", device="cpu")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("backbone.focus=resnet18",), {"backbone.focus": "resnet18"}),
        (
            ("backbone.focus=resnet34", "backbone.shift_place=block"),
            {"backbone.focus": "resnet34", "backbone.shift_place": "block"},
        ),
        (
            ("backbone.temporal_pool=true", "backbone.shift_place=block"),
            {"backbone.shift_place": "block", "backbone.temporal_pool": "true"},
        ),
        (("backbone=r101_tsm",), {"backbone": "r101_tsm"}),
    ],
)
def test_depth_place_and_pool_of_tsm_files(typed: tuple[str, ...], said: dict[str, str]) -> None:
    settings = composed("experiment=tsm_sthv1_8f", "dataset.root=.", "backbone.weights=none", *typed)
    with torch.device("meta"):
        model = build.model(settings, 174, weights=False)
    state = tensors({"state_dict": {official_key(key, "tsm"): value for key, value in model.state_dict().items()}})
    found = identify(detect(state), state).said
    assert {"backbone": "r50_tsm", **said}.items() <= found.items()
    extra = {"backbone.focus", "backbone.shift_place", "backbone.temporal_pool"} & set(found)
    assert extra == {key for key in said if key != "backbone"}


def test_leaves_of_open_groups_are_accepted_and_offered() -> None:
    identity = Identity({"method": "m"}, {"patch": ("96", "128"), "segments": ("8+8", "8+12")}, 3)
    assert identity.overrides(("patch.size", "segments.focus")) == ["method=m"]
    with pytest.raises(UserError, match="other sizes: patch.size=N, segments.glance=N segments.focus=N"):
        identity.overrides(())


@pytest.mark.slow
def test_evaluation_of_a_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """mode=evaluate works on a published AdaFocus V2 file, and on a checkpoint of this package outside its run
    folder."""
    state, _ = official("mobilenet_v2", 3, 3, frame_size=64, patch_size=48)
    torch.save({"state_dict": state}, tmp_path / "official.pth.tar")
    for label in "abc":
        (tmp_path / f"videos/{label}").mkdir(parents=True)
        for number in range(2):
            numbered.write(tmp_path / f"videos/{label}/{number}.mp4", 12)
    typed = ("mode=evaluate", "checkpoint=official.pth.tar", "dataset.root=videos", "device=cpu", "loader.workers=0")
    monkeypatch.chdir(tmp_path)
    assert main(["run", *typed]) == 2
    text = capsys.readouterr().err
    assert "patch=96|128|160" in text and text.count("error:") == 1
    text = runs.run(tmp_path, *typed, "patch.size=48", "patch=48", "dataset.frame_size=64", "name=b")
    assert "official.pth.tar says: method=adafocus_v2" in text and "official AdaFocus V2 layout" in text
    assert len(runs.summary(tmp_path / "outputs/b")["rows"]) == 4
    runs.run(tmp_path, *runs.arguments(patch__size="24"), "name=a")
    (tmp_path / "outputs/a/last.pt").rename(tmp_path / "moved.pt")
    runs.run(tmp_path, "mode=evaluate", "checkpoint=moved.pt", "loader.workers=0", "name=c", "device=cpu")
    first, again = (runs.summary(tmp_path / f"outputs/{name}") for name in "ac")
    assert first["score"] == again["score"] and first["cost"] == again["cost"]


def test_states_of_golden_weights_have_the_layouts_that_are_told_apart() -> None:
    """The checkpoint layout of a TSM recognizer is recognized from its keys alone."""
    settings = composed("experiment=tsm_sthv1_8f", "dataset.root=.", "backbone.weights=none")
    with torch.device("meta"):
        model = build.model(settings, 174, weights=False)
    state = {official_key(key, "tsm"): value for key, value in model.state_dict().items()}
    state = tensors({"state_dict": state})
    identity = identify(detect(state), state)
    assert identity.said["backbone"] == "r50_tsm" and identity.open["dataset"] == ("sthv1", "sthv2")
    assert identity.overrides(("dataset", "segments")) == ["method=recognizer", "backbone=r50_tsm"]
    assert identity.overrides(("experiment",)) == []
    assert (
        golden_weights.weight("a.weight", (2, 2)).shape == (2, 2)
        and config.from_dict(config.to_dict(settings)) == settings
    )
