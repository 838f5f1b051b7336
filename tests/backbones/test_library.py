"""Networks of torchvision and timm by name: maps, normalization, weights, and what is said about wrong ones."""

from __future__ import annotations

import sys
from urllib.error import URLError

import pytest
import torch
from torch import nn

from adafocus.backbones import features_of, library
from adafocus.core.errors import UserError

#: Name -> width and side of the map of images of 64 pixels.
MAPS = {
    "timm/test_resnet": (96, 2),
    "timm/test_efficientnet": (256, 2),
    "timm/test_convnext": (64, 2),
    "timm/test_byobnet": (256, 2),
    "timm/test_vit": (64, 4),  # a class token, and built for this size
    "timm/test_vit3": (96, 4),  # register tokens
    "timm/test_mambaout": (64, 2),  # channels last
    "timm/mobilenetv4_conv_small_035": (336, 2),
    "timm/swin_tiny_patch4_window7_224": (768, 2),
    "torchvision/resnet18": (512, 2),
    "torchvision/regnet_y_400mf": (440, 2),
    "torchvision/swin_t": (768, 2),
    "torchvision/densenet121": (1024, 2),
}


def network(name: str, size: int = 64, **options: object) -> library.Features:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    return library.network(name, size, options)


@pytest.mark.parametrize("name", MAPS)
def test_every_output_becomes_a_map(name: str) -> None:
    with torch.device("meta"):
        net = network(name)
        maps = net.eval()(torch.empty(2, 3, 64, 64))
    width, side = MAPS[name]
    assert maps.shape == (2, width, side, side) and (net.width, net.map_size(64)) == (width, (side, side))
    assert not any(key.startswith(("layers.head", "layers.classifier", "layers.fc")) for key in net.state_dict())


def test_the_map_is_the_one_that_the_library_pools() -> None:
    """With the classifier of the whole network on top, the logits are those of the whole network."""
    from torchvision import models

    torch.manual_seed(0)
    images, whole = torch.randn(2, 3, 64, 64), models.densenet121(num_classes=3).eval()
    net = network("torchvision/densenet121").eval()
    net.load_state_dict(library.converted(net, whole.state_dict()))
    torch.testing.assert_close(whole.classifier(net(images).mean((-2, -1))), whole(images))

    timm = pytest.importorskip("timm")
    whole = timm.create_model("test_vit", img_size=64, num_classes=3, global_pool="avg", fc_norm=False).eval()
    net = network("timm/test_vit", global_pool="avg", fc_norm=False).eval()
    net.load_state_dict(library.converted(net, whole.state_dict()))
    torch.testing.assert_close(whole.head(net(images).mean((-2, -1))), whole(images))


def test_the_normalization_is_the_librarys_and_restored_from_that_of_the_clip() -> None:
    net = network("timm/test_resnet").eval()  # 0.5 and 0.5
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = net((pixels - 0.5) / 0.5)
    net.renormalize(mean.flatten().tolist(), std.flatten().tolist())
    torch.testing.assert_close(net((pixels - mean) / std), expected, rtol=1e-4, atol=1e-5)

    same = network("torchvision/resnet18").eval()  # ImageNet's: nothing to do, to the bit
    before = same((pixels - mean) / std)
    same.renormalize(mean.flatten().tolist(), std.flatten().tolist())
    assert torch.equal(same((pixels - mean) / std), before)


def test_a_checkpoint_keeps_the_normalization_that_it_was_trained_with() -> None:
    trained = network("timm/test_resnet", mean=[0.1, 0.2, 0.3], std=[0.4, 0.4, 0.4]).eval()
    loaded = network("timm/test_resnet").eval()  # as a later timm would describe it
    loaded.load_state_dict(trained.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for net in (trained, loaded):
        net.renormalize([0.5] * 3, [0.5] * 3)
    assert torch.equal(loaded(images), trained(images))
    assert not torch.equal(trained(images), trained.layers.forward_features(images))


def test_weights_of_a_file_fit_other_sizes_and_come_without_the_head() -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model("test_vit", pretrained=False)  # for 160 pixels
    net = network("timm/test_vit", 64)
    net.load_state_dict(library.converted(net, whole.state_dict()))
    assert net.layers.pos_embed.shape[1] == 1 + 16
    assert torch.equal(net.layers.blocks[0].attn.qkv.weight, whole.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm/test_resnett", "timm has no network 'test_resnett'; did you mean timm/test_resnet"),
        ("timm/test_resnet.in22k", "timm has no weights 'in22k' of test_resnet; choose one of r160_in1k"),
        ("timm/hf-hub:somebody/net", "timm has no network"),
        ("torchvision/efficentnet_b0", "did you mean torchvision/efficientnet_b0"),
        ("torchvision/vit_b_16", "cannot be built for images of 64 pixels"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, says: str) -> None:
    with pytest.raises(UserError) as raised:
        network(name)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_sizes_and_options_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(UserError, match=r"40 pixels: .*divisible by patch size \(16\).* own images have 160 pixels"):
        network("timm/test_vit", 40)
    with pytest.raises(UserError, match="no_such_option"):
        network("timm/test_resnet", no_such_option=1)
    with pytest.raises(UserError, match="checkpoint_path is not for networks of timm"):
        network("timm/test_resnet", checkpoint_path="/etc/passwd")
    assert network("timm/test_resnet", drop_path_rate=0.5)


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'need timm: pip install "adafocus\[timm\]"'):
        library.network("timm/test_resnet", 64)


def test_pretrained_weights_come_from_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    made, create = [], timm.create_model

    def offline(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        made.append((name, pretrained))
        return create(name, **options)

    monkeypatch.setattr(library, "_reach", lambda url: None)
    monkeypatch.setattr(timm, "create_model", offline)
    state = library.pretrained("timm/test_resnet.r160_in1k", 64)
    assert made == [("test_resnet.r160_in1k", True)]
    net = network("timm/test_resnet")
    net.load_state_dict(library.converted(net, state))
    with pytest.raises(UserError, match="there are no pretrained weights of timm/starnet_s050"):
        library.pretrained("timm/starnet_s050", 64)


def test_no_network_is_one_line_with_the_place_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(library, "urlopen", unreachable)
    monkeypatch.setattr(library, "_in_cache", lambda which: False)
    with pytest.raises(UserError) as raised:
        library.pretrained("timm/test_resnet.r160_in1k", 64)
    line = str(raised.value)
    assert "https://huggingface.co/timm/test_resnet.r160_in1k (Name or service not known)" in line
    assert "backbone.weights=FILE" in line and "\n" not in line


def test_features_of_takes_a_network_of_timm() -> None:
    timm = pytest.importorskip("timm")
    net = features_of(timm.create_model("test_vit"))
    assert net(torch.randn(1, 3, 160, 160)).shape == (1, 64, 10, 10) and net.own == [0.5] * 6
