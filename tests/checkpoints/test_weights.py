from __future__ import annotations

import os
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import golden_weights
from helpers.official import official
from safetensors.torch import save_file

from adafocus.backbones import BACKBONES
from adafocus.checkpoints import (
    backbone_state,
    detect,
    fit,
    from_adafocus_v2,
    imagenet_weights,
    load_checkpoint,
    load_file,
    load_start,
    mobilenet_to_torchvision,
    tensors,
)
from adafocus.checkpoints.identify import identify
from adafocus.core.errors import UserError
from adafocus.core.versions import current_state
from adafocus.methods.adafocus_v2.model import AdaFocusV2


def tiny(classes: int = 3) -> AdaFocusV2:
    focus, glance = BACKBONES["tiny_focus"](), BACKBONES["tiny_glance"]()
    return AdaFocusV2(
        glance,
        focus,
        num_classes=classes,
        segments=4,
        patch_size=16,
        frame_size=32,
        policy_hidden=8,
        classifier_width=8,
    )


@pytest.mark.parametrize(("glance", "segments", "classes"), [("resnet50", 5, 7), ("mobilenet_v2", 16, 239)])
def test_the_official_layout_maps_for_any_frames_and_classes(glance: str, segments: int, classes: int) -> None:
    state, model = official(glance, segments, classes)
    state["module.local_CNN.fc.weight"] = torch.zeros(1000, 2048)
    state["module.global_CNN.classifier.weight"] = torch.zeros(1000, 1280)
    ours = current_state(from_adafocus_v2(tensors({"state_dict": state})))
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert torch.equal(ours["classifier.weight"][2], state["module.classifier.classifiers.2.1.weight"])
    assert detect(tensors({"state_dict": state})) == "adafocus_v2"


def test_third_party_mobilenet_keys_become_torchvisions() -> None:
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):
        theirs = set(mobilenet_v2().state_dict())
    pairs = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    for key in theirs:
        parts = key.split(".")
        if parts[0] == "features" and parts[2] == "conv" and parts[1] != "1":
            layer = ".".join(parts[3:-1])
            assert mobilenet_to_torchvision(f"features.{parts[1]}.conv.{pairs[layer]}.{parts[-1]}") == key
    assert mobilenet_to_torchvision("features.1.conv.4.running_var") == "features.1.conv.2.running_var"
    assert mobilenet_to_torchvision("classifier.weight") == "classifier.1.weight"


def test_imagenet_files_of_both_layouts_fill_a_backbone(tmp_path: Path) -> None:
    backbone = BACKBONES["mobilenet_v2"]()
    flat = {}
    turn = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    first = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
    for key, value in backbone.state_dict().items():
        parts = key.split(".")
        if parts[2] == "conv":
            table = first if parts[1] == "1" else turn
            key = f"features.{parts[1]}.conv.{table['.'.join(parts[3:-1])]}.{parts[-1]}"
        flat[key.replace("layers.", "features.", 1)] = golden_weights.weight(key, value.shape)
    flat["classifier.weight"] = torch.zeros(1000, 1280)
    torch.save(flat, tmp_path / "mbv2.pth.tar")
    imagenet_weights(backbone, "mobilenet_v2", str(tmp_path / "mbv2.pth.tar"))
    assert torch.equal(backbone.state_dict()["layers.18.0.weight"], flat["features.18.0.weight"])
    imagenet_weights(backbone, "mobilenet_v2", "none")
    with pytest.raises(UserError, match="resnet50 from .* is a checkpoint of another model"):
        imagenet_weights(BACKBONES["resnet50"](), "resnet50", str(tmp_path / "mbv2.pth.tar"))
    with pytest.raises(UserError, match="backbone.weights=none"):
        imagenet_weights(tiny().focus, "tiny_focus", "imagenet")


def test_our_own_files_load_from_pt_and_safetensors(tmp_path: Path) -> None:
    model = tiny()
    torch.save({"format": 1, "model": model.state_dict(), "progress": {"step": 3}}, tmp_path / "last.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for name in ("last.pt", "model.safetensors"):
        other = tiny()
        report = load_checkpoint(tmp_path / name, other)
        assert "none missing" in str(report)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_other_class_counts_and_layouts_are_named(tmp_path: Path) -> None:
    torch.save({"model": tiny(classes=5).state_dict()}, tmp_path / "five.pt")
    with pytest.raises(UserError, match=r"another shape \(first: glance_head.1.weight \(5, 32\), here \(3, 32\)\)"):
        load_checkpoint(tmp_path / "five.pt", tiny())
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "alien.pt")
    with pytest.raises(UserError, match="unknown layout"):
        load_checkpoint(tmp_path / "alien.pt", tiny())
    with pytest.raises(UserError, match="missing .*unexpected"):
        fit(tiny(), {"strange": torch.zeros(1)}, "x")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/adafocus-was-here"),))


def test_a_file_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    target = Path("/tmp/adafocus-was-here")
    target.unlink(missing_ok=True)
    torch.save({"state_dict": {}, "args": Evil()}, tmp_path / "evil.pth.tar")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth.tar", "plain.pth"):
        with pytest.raises(UserError, match="could run code|without running code"):
            load_file(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"noise" * 100, pickle.dumps([1, 2])])
def test_files_that_are_no_checkpoint_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_file(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def _odd(path: Path, kind: str) -> None:
    """Writes a file that is not a usable checkpoint: a common mistake, a damaged file or a malicious one."""
    state = tiny().state_dict()
    key = next(iter(state))
    if kind == "integer keys":
        torch.save({"state_dict": {0: torch.zeros(1)}}, path)
    elif kind == "sparse":
        torch.save({"model": {**state, key: state[key].to_sparse()}}, path)
    elif kind == "nan":
        torch.save({"model": {**state, key: state[key] * float("nan")}}, path)
    elif kind == "int8":
        torch.save({"model": {**state, key: state[key].to(torch.int8)}}, path)
    elif kind == "head of 0 dimensions":
        torch.save(
            {
                "state_dict": {
                    "module.base_model.conv1.weight": torch.zeros(1),
                    "module.new_fc.weight": torch.tensor(1.0),
                }
            },
            path,
        )
    elif kind == "protocol 4":
        torch.save({"model": state}, path, pickle_protocol=4)
    elif kind == "torchscript":
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            (path.parent / "inside").write_text("x")
            archive.add(path.parent / "inside", "inside")
    elif kind == "text":
        path.write_text("epoch,loss\n1,2\n")
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as file:
            for _ in range(64):
                file.write(b"\x80\x02" + bytes(2**20))
    elif kind == "broken zip":
        torch.save({"model": state}, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "zip of something":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("page.html", "<html>")


ODD = {
    "integer keys": "numbers instead of names (first: 0)",
    "sparse": "has sparse tensors",
    "nan": "NaN or infinite",
    "int8": "int8 numbers as weights",
    "head of 0 dimensions": "other shapes",
    "protocol 4": "is a pickle of protocol 4",
    "torchscript": "is a TorchScript program",
    "tar": "is a tar archive",
    "text": "it is text",
    "bomb": "would unpack to",
    "broken zip": "is damaged",
    "zip of something": "without data.pkl",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_one_line_that_says_why(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when it writes some of these files
        _odd(path, kind)
    with warnings.catch_warnings(), pytest.raises(UserError) as error:
        warnings.simplefilter("error")
        state = tensors(load_file(path), str(path))
        if kind == "head of 0 dimensions":
            identify(detect(state), state)
        load_checkpoint(path, tiny())
    text = str(error.value)
    assert ODD[kind] in text and "\n" not in text and "weights_only" not in text, text


def test_nan_weights_are_refused_wherever_weights_start(tmp_path: Path) -> None:
    state = tiny().state_dict()
    key = next(key for key in state if key.startswith("focus_net."))
    torch.save({"model": {**state, key: state[key] * float("inf")}}, tmp_path / "x.pt")
    for part in (None, "focus"):
        with pytest.raises(UserError, match="NaN or infinite"):
            load_start(tmp_path / "x.pt", tiny(), part)


def test_wrappers_of_wrappers_and_of_compile_are_taken_off() -> None:
    for prefix in ("module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        assert list(tensors({"state_dict": {f"{prefix}a.weight": torch.zeros(1)}})) == ["a.weight"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "x.pt")
    (tmp_path / "x.pt").chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        load_file(tmp_path / "x.pt")


def test_an_error_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "x.pt")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        load_file(tmp_path / "x.pt")


def test_heads_of_imagenet_files_are_dropped() -> None:
    state = {"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    assert list(backbone_state(state)) == ["conv1.weight"]
