"""Temporal modules in the networks of torchvision and timm, a family at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adafocus.backbones import BACKBONES, library
from adafocus.backbones.adaptive import TemporalAdaptive
from adafocus.backbones.blocks import branches
from adafocus.backbones.features import Features
from adafocus.backbones.shift import Shifted
from adafocus.backbones.temporal import Temporal, insert
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.recognizer.online import OnlineRecognizer

#: A network of each family -> number of blocks that get temporal modules.
FAMILIES = {
    "timm/test_resnet": 4,
    "timm/resnet18": 8,
    "timm/mobilenetv2_035": 10,
    "timm/mobilenetv3_small_050": 7,
    "timm/mobilenetv4_conv_small_035": 10,
    "timm/efficientnet_b0": 9,
    "timm/test_convnext": 9,
    "timm/regnetx_002": 13,
    "timm/repvit_m0_9": 23,
    "torchvision/resnet18": 8,
    "torchvision/mobilenet_v2": 10,
    "torchvision/mobilenet_v3_small": 6,
    "torchvision/efficientnet_b0": 9,
    "torchvision/convnext_tiny": 18,
    "torchvision/regnet_x_400mf": 22,
}
SIZE = 32  # of the images


def network(name: str, **temporal: object) -> Features:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    net = library.network(name, SIZE)
    for key, parameter in net.named_parameters():  # many branches begin at zero, ConvNeXt's at 1e-6
        if key.endswith(("weight", "gamma", "layer_scale")) and parameter.abs().max() < 1e-3:
            nn.init.ones_(parameter)
    if temporal:
        insert(net, 3, Temporal(**temporal))
    return net.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_mix_within_a_clip_and_gradients_flow(name: str) -> None:
    net = network(name, shift="bidirectional", div=4)
    places = [module for module in net.modules() if isinstance(module, Shifted)]
    assert len(places) == FAMILIES[name]
    frames = torch.randn(6, 3, SIZE, SIZE)
    other = frames.clone()
    other[2] += 1  # the last frame of the first clip
    with torch.no_grad():
        changed = (net(other) - net(frames)).flatten(1).abs().amax(1) > 0
    assert changed[:3].any() and changed[1] and changed[2] and not changed[3:].any()
    net.train()(frames).square().mean().backward()
    reached = [module.net.weight.grad for module in places]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in reached)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("timm/")])
def test_a_shift_of_no_channel_is_the_network_itself(name: str) -> None:
    plain, shifted = network(name), network(name, shift="bidirectional", div=100_000)
    frames = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(shifted(frames), plain(frames))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("timm/")])
def test_the_online_shift_streams(name: str) -> None:
    net = network(name, shift="online", div=4)
    model = Recognizer(net, num_classes=3, segments=3).eval()
    nn.init.normal_(model.head.weight)
    online, clip = OnlineRecognizer(model), torch.randn(2, 3, 3, SIZE, SIZE)
    caches, frames = online.start(2, SIZE), []
    with torch.no_grad():
        for frame in clip.unbind(1):
            output = online(frame, caches)
            caches = output.caches
            frames.append(output.logits)
        torch.testing.assert_close(torch.stack(frames, 1), model(clip).per_frame, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("timm/")])
def test_tam_sees_the_whole_clip(name: str) -> None:
    net = network(name, adaptive=True)
    assert sum(isinstance(module, TemporalAdaptive) for module in net.modules()) == FAMILIES[name]
    frames = torch.randn(3, 3, SIZE, SIZE)
    other = frames.clone()
    other[2] += 1
    with torch.no_grad():
        changed = (net(other) - net(frames)).flatten(1).abs().amax(1) > 0
    assert changed.all()


@pytest.mark.parametrize("temporal", [{"shift": "bidirectional"}, {"shift": "online"}, {"adaptive": True}])
@pytest.mark.parametrize(
    ("name", "ours"), [("torchvision/resnet18", "resnet18"), ("torchvision/mobilenet_v2", "mobilenet_v2")]
)
def test_modules_are_where_they_are_in_our_own_networks(name: str, ours: str, temporal: dict[str, object]) -> None:
    if ours == "mobilenet_v2" and "adaptive" in temporal:
        pytest.skip("our MobileNetV2 has no TAM")
    found, expected = network(name, **temporal), BACKBONES[ours]()
    insert(expected, 3, Temporal(**temporal)).eval()
    state = {_short(key): value for key, value in found.state_dict().items() if key not in ("mean", "std")}
    expected.load_state_dict({key: state[_short(key)] for key in expected.state_dict()})
    frames = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(found(frames), expected(frames))


def _short(key: str) -> str:
    return key.removeprefix("layers.").removeprefix("features.")


def test_stages_of_23_blocks_get_every_second_one() -> None:
    """As our ResNet-101, and the released `make_temporal_shift`."""
    with torch.device("meta"):
        net, ours = library.network("torchvision/resnet101", 64), BACKBONES["resnet101"]()
        insert(ours, 8, Temporal(shift="bidirectional"))
        insert(net, 8, Temporal(shift="bidirectional"))

    def places(network: nn.Module) -> list[str]:
        return [_short(path) for path, module in network.named_modules() if isinstance(module, Shifted)]

    assert places(net) == places(ours) and len(places(net)) == 18


def test_blocks_without_identity_or_expansion_stay_as_they_are() -> None:
    pytest.importorskip("timm")
    paths = [path for path, _ in branches(library.network("timm/mobilenetv2_035", 64).layers)]
    assert "blocks.0.0.conv_dw" not in paths and "blocks.1.0.conv_pw" not in paths and "blocks.1.1.conv_pw" in paths


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop_path = nn.Conv2d(3, 4, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv(x))


def test_other_blocks_are_one_line() -> None:
    for module in (Strange(), nn.Conv2d(3, 4, 3)):
        with pytest.raises(ValueError, match=f"no position in .*{type(module).__name__}; they go into ResNet"):
            insert(Features(module), 2, Temporal(shift="bidirectional"))
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="EfficientNet has no block with an identity path"):
        insert(library.network("timm/test_efficientnet", SIZE), 2, Temporal(shift="bidirectional"))
    with pytest.raises(ValueError, match="support the shift position blockres only, not block"):
        insert(network("torchvision/resnet18"), 2, Temporal(shift="bidirectional", place="block"))
    with pytest.raises(ValueError, match="does not support the temporal module 'pool'"):
        insert(network("torchvision/resnet18"), 2, Temporal(pool=True))
