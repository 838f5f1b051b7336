"""Folders that describe a network: data in, plain keys out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.configs import composed

from adafocus import build, config
from adafocus.config import stored
from adafocus.core.errors import UserError


def folder(tmp_path: Path, **content: object) -> Path:
    described = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}, **content}
    (tmp_path / "config.json").write_text(json.dumps(described))
    return tmp_path


def test_a_folder_becomes_the_keys_that_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    place = folder(tmp_path, model_args={"drop_path_rate": 0.1})
    typed = ("backbone.glance=timm/test_vit", "backbone.weights=imagenet", "patch.size=32", "backbone.glance_size=32")
    found = composed(f"backbone.focus=file/{place}", *typed)
    assert found.backbone.focus == "timm/test_resnet" and found.backbone.weights == "none"  # it holds no weights
    assert found.backbone.glance_weights == "imagenet"
    assert found.backbone.focus_options == {"mean": [0.1] * 3, "std": [0.2] * 3, "drop_path_rate": 0.1}
    assert found.dataset.mean is None
    (place / "config.json").unlink()  # a checkpoint does not need it
    again = config.from_dict(config.to_dict(found))
    assert again == found
    assert build.meta_model(found, 3).focus_net.own == [*[0.1] * 3, *[0.2] * 3]

    folder(tmp_path)
    (place / "model.safetensors").touch()
    found = composed(f"backbone.glance=file/{place}", "backbone.weights=imagenet")
    assert (found.backbone.weights, found.backbone.glance_weights) == ("imagenet", str(place / "model.safetensors"))
    found = composed(f"backbone.focus=file/{place}", "backbone.weights=none")
    assert found.backbone.weights == "none" and found.backbone.glance_weights is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"architecture": "os;system"}, "does not name an architecture"),
        ({"architecture": ["x"]}, "does not name an architecture"),
        ({"architecture": "hf-hub:somebody/net"}, "does not name an architecture"),
        ({"model_args": {"x": "${oc.env:HOME}"}}, "interpolation"),
    ],
)
def test_what_is_no_description_is_one_line(tmp_path: Path, content: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        composed(f"backbone.focus=file/{folder(tmp_path, **content)}", "backbone.weights=none")


def test_a_file_and_an_empty_folder_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config.json of a timm network"):
        composed(f"backbone.focus=file/{tmp_path}")
    (tmp_path / "net.safetensors").touch()
    with pytest.raises(UserError, match=r"backbone.focus=timm/NAME backbone.weights=.*net.safetensors"):
        composed(f"backbone.focus=file/{tmp_path / 'net.safetensors'}")


def test_our_networks_keep_imagenets_normalization_in_their_configuration() -> None:
    assert (composed().dataset.mean, composed().dataset.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    typed = composed("backbone.focus=timm/test_resnet", "dataset.mean=[0.5,0.5,0.5]", "backbone.weights=none")
    assert (typed.dataset.mean, typed.dataset.std) == ([0.5, 0.5, 0.5], [0.229, 0.224, 0.225])


def test_a_run_stores_what_the_folder_says(tmp_path: Path) -> None:
    typed = [f"backbone.focus='file/{folder(tmp_path)}'", "backbone.weights=none", "+backbone.focus_options.x=1"]
    kept = stored.without_folders([*typed, "patch=96"], composed(*typed))
    options = "+backbone.focus_options={mean:[0.1,0.1,0.1],std:[0.2,0.2,0.2],x:1}"
    assert kept == ["backbone.weights=none", "patch=96", "backbone.focus='timm/test_resnet'", options]
    assert composed(*kept[:1], *kept[2:]).backbone == composed(*typed).backbone
    assert stored.overrides(kept, (), "a file") == kept[1:]  # weights are the run's own
