"""Inserts temporal modules into 2-D backbones by wrapping single layers, so that the rest stays the library's network.

ImageNet weights are loaded before the insertion, checkpoints of video networks after it.

Source: mit-han-lab/temporal-shift-module, `make_temporal_shift` in ops/temporal_shift.py and `make_non_local` in
ops/non_local.py; liu-zhy/temporal-adaptive-module, `make_temporal_modeling` in ops/temporal_module.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from adafocus.backbones.adaptive import Adapted
from adafocus.backbones.base import Backbone
from adafocus.backbones.blocks import branches
from adafocus.backbones.features import Features
from adafocus.backbones.mobilenet import MobileNetV2
from adafocus.backbones.non_local import NonLocalAfter
from adafocus.backbones.resnet import ResNet
from adafocus.backbones.shift import Shifted, TemporalPool
from adafocus.backbones.tiny import TinyNet
from adafocus.core.choices import SHIFT_PLACES, SHIFTS

#: Layer -> indices of the ResNet blocks after which NL-TSM has a non-local block.
_NON_LOCAL = {"layer2": (0, 2), "layer3": (0, 2, 4)}


@dataclass(frozen=True)
class Temporal:
    """The temporal modules of a backbone.

    Attributes:
        shift: "none", "bidirectional" (TSM) or "online" (from the past only, for streams).
        div: of C channels, C // div move in each direction.
        place: position of the shift. "blockres": before the first convolution of a block; the identity path is not
            shifted.
            "block": before the whole block, identity included (ResNets only). "branch": before the residual branch of
            every block, also of blocks without identity (MobileNetV2 in the fork WavesUR/embedded_TSM).
        pool: whether to halve the number of frames before layer2 (ResNets only).
        adaptive: whether to put TAM before the second convolution of every block.
        non_local: whether to add five non-local blocks (ResNet-50 and deeper).

    In networks of torchvision and timm (`backbones.features.Features`), the positions are those of `backbones.blocks`;
    they have `shift` with place "blockres" and `adaptive`.
    """

    shift: str = "none"
    div: int = 8
    place: str = "blockres"
    pool: bool = False
    adaptive: bool = False
    non_local: bool = False

    def __bool__(self) -> bool:
        return self.shift != "none" or self.pool or self.adaptive or self.non_local


def insert(backbone: Backbone, segments: int, temporal: Temporal) -> Backbone:
    """Inserts the temporal modules in place and returns the backbone, which now takes frames of clips, (B * T, 3, H,
    W).

    Args:
        backbone: the 2-D backbone.
        segments: number of frames T of a clip.
        temporal: the modules to insert.

    Raises:
        ValueError: the backbone does not support a module, or the number of frames does not suit it.
    """
    if not temporal:
        return backbone
    if temporal.shift not in ("none", *SHIFTS):
        raise ValueError(f"shift={temporal.shift!r} is unknown; choose one of none, {', '.join(SHIFTS)}")
    if temporal.place not in SHIFT_PLACES:
        raise ValueError(f"place={temporal.place!r} is unknown; choose one of {', '.join(SHIFT_PLACES)}")
    kinds: dict[type[nn.Module], Callable[..., None]]
    kinds = {ResNet: _into_resnet, MobileNetV2: _into_mobilenet, TinyNet: _into_tiny, Features: _into_blocks}
    kind = next((kind for kind in kinds if isinstance(backbone, kind)), None)
    if kind is None:
        raise ValueError(f"{type(backbone).__name__} does not support temporal modules")
    for name, allowed in (("pool", (ResNet,)), ("non_local", (ResNet,)), ("adaptive", (ResNet, TinyNet, Features))):
        if getattr(temporal, name) and kind not in allowed:
            raise ValueError(f"{kind.__name__} does not support the temporal module {name!r}; choose a ResNet")
    kinds[kind](backbone, segments, temporal)
    return backbone


def _shifted(net: nn.Module, segments: int, temporal: Temporal) -> Shifted:
    return Shifted(net, segments, temporal.div, online=temporal.shift == "online")


def _into_resnet(net: ResNet, segments: int, temporal: Temporal) -> None:
    if temporal.place == "branch":
        raise ValueError("the shift position branch is supported by MobileNetV2 only; ResNets have blockres and block")
    stages: dict[str, nn.Sequential] = {name: getattr(net, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    if temporal.non_local and (len(stages["layer2"]) < 4 or len(stages["layer3"]) < 6):
        raise ValueError("non-local blocks need a ResNet of depth 34 or more")
    # `make_temporal_shift` shifts only every second block if layer3 has 23 blocks or more (ResNet-101).
    every = 2 if len(stages["layer3"]) >= 23 and temporal.place == "blockres" else 1
    for name, stage in stages.items():
        frames = segments // 2 if temporal.pool and name != "layer1" else segments
        block: Any
        for index, block in enumerate(stage):
            last = block.conv3 if hasattr(block, "conv3") else block.conv2
            if temporal.adaptive:
                block.conv2 = Adapted(block.conv2, block.conv2.in_channels, frames)
            if temporal.shift != "none" and index % every == 0:
                if temporal.place == "blockres":
                    block.conv1 = _shifted(block.conv1, frames, temporal)
                else:
                    stage[index] = _shifted(block, frames, temporal)
            if temporal.non_local and index in _NON_LOCAL.get(name, ()):
                stage[index] = NonLocalAfter(stage[index], last.out_channels, frames)
    if temporal.pool:
        net.layer2 = TemporalPool(net.layer2, segments)


def _into_mobilenet(net: MobileNetV2, segments: int, temporal: Temporal) -> None:
    if temporal.place == "block":
        raise ValueError("the shift position block is supported by ResNets only; MobileNetV2 has blockres and branch")
    for block in net.layers[1:-1]:
        if temporal.place == "branch":
            block.conv = _shifted(block.conv, segments, temporal)
        elif block.use_res_connect and len(block.conv) > 3:  # blocks with an identity path and an expansion layer
            block.conv[0][0] = _shifted(block.conv[0][0], segments, temporal)


def _into_tiny(net: TinyNet, segments: int, temporal: Temporal) -> None:
    if temporal.place != "blockres":
        raise ValueError(f"tiny networks have no blocks: the shift position must be blockres, not {temporal.place}")
    for index in range(3, len(net.layers), 3):  # every convolution but the first, whose input are pixels
        layer = net.layers[index]
        if temporal.adaptive:
            layer = Adapted(layer, cast(nn.Conv2d, layer).in_channels, segments)
        if temporal.shift != "none":
            layer = _shifted(layer, segments, temporal)
        net.layers[index] = layer


def _into_blocks(net: Features, segments: int, temporal: Temporal) -> None:
    if temporal.place != "blockres":
        raise ValueError(
            f"networks of torchvision and timm support the shift position blockres only, not {temporal.place}"
        )
    for shifted, adapted in branches(net.layers):
        if temporal.adaptive:
            conv = cast(nn.Conv2d, net.layers.get_submodule(adapted))
            _replace(net.layers, adapted, Adapted(conv, conv.in_channels, segments))
        if temporal.shift != "none":
            _replace(net.layers, shifted, _shifted(net.layers.get_submodule(shifted), segments, temporal))


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def with_flow_input(backbone: Backbone, channels: int) -> Backbone:
    """Replaces the first convolution by one for `channels` channels of optical flow, each with the mean RGB kernel.

    Source: `TSN._construct_flow_model` in ops/models.py of mit-han-lab/temporal-shift-module. The kernels are not
    rescaled, so activations grow with the number of channels.
    """
    name, conv = next((name, part) for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d))
    if type(conv) is not nn.Conv2d:  # for example timm's Conv2dSame with TensorFlow's padding
        raise ValueError(f"optical flow cannot replace the first layer {name}, a {type(conv).__name__}")
    same = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding")}
    wider = nn.Conv2d(
        channels,
        conv.out_channels,
        **same,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        wider.weight.copy_(conv.weight.mean(1, keepdim=True).expand_as(wider.weight))
        if conv.bias is not None and wider.bias is not None:
            wider.bias.copy_(conv.bias)
    _replace(backbone, name, wider)
    return backbone


def mixes_frames(backbone: nn.Module) -> bool:
    """Whether the features of a frame depend on other frames of its clip, because temporal modules are inserted."""
    return any(isinstance(module, (Shifted, TemporalPool, Adapted, NonLocalAfter)) for module in backbone.modules())
