"""Puts temporal modules into the 2-D networks: around single layers, so that the networks stay torchvision's own.

ImageNet weights go in before, checkpoints of video networks after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from adafocus.backbones.adaptive import Adapted
from adafocus.backbones.mobilenet import MobileNetV2
from adafocus.backbones.non_local import NonLocalAfter
from adafocus.backbones.resnet import ResNet
from adafocus.backbones.shift import Shifted, TemporalPool
from adafocus.backbones.tiny import TinyNet
from adafocus.core.choices import SHIFT_PLACES, SHIFTS

#: Blocks after which NL-TSM has a non-local block.
_NON_LOCAL = {"layer2": (0, 2), "layer3": (0, 2, 4)}


@dataclass(frozen=True)
class Temporal:
    """Which temporal modules a backbone has.

    Attributes:
        shift: "none", "bidirectional" or "online" (from the past only, for streams).
        div: one in `div` channels moves in each direction.
        place: "blockres": before the first convolution of a block, its identity path sees unshifted frames. "block":
            before the whole block, identity included (ResNets). "branch": before the whole residual branch of every
            block, also of those without identity (the embedded_TSM fork's MobileNetV2).
        pool: halves the frames before layer2 (ResNets).
        adaptive: TAM before the second convolution of every block.
        non_local: five non-local blocks (ResNets from 50 on).
    """

    shift: str = "none"
    div: int = 8
    place: str = "blockres"
    pool: bool = False
    adaptive: bool = False
    non_local: bool = False

    def __bool__(self) -> bool:
        return self.shift != "none" or self.pool or self.adaptive or self.non_local


def insert(backbone: nn.Module, segments: int, temporal: Temporal) -> nn.Module:
    """Inserts the modules in place and returns the backbone, which from then on reads clips (B * T, 3, H, W).

    Raises:
        ValueError: this backbone has no such place, or the number of segments does not fit.
    """
    if not temporal:
        return backbone
    if temporal.shift not in ("none", *SHIFTS):
        raise ValueError(f"shift={temporal.shift!r} is unknown; choose one of none, {', '.join(SHIFTS)}")
    if temporal.place not in SHIFT_PLACES:
        raise ValueError(f"place={temporal.place!r} is unknown; choose one of {', '.join(SHIFT_PLACES)}")
    kind = next((kind for kind in (ResNet, MobileNetV2, TinyNet) if isinstance(backbone, kind)), None)
    if kind is None:
        raise ValueError(f"{type(backbone).__name__} has no place for temporal modules")
    for name, allowed in (("pool", (ResNet,)), ("non_local", (ResNet,)), ("adaptive", (ResNet, TinyNet))):
        if getattr(temporal, name) and kind not in allowed:
            raise ValueError(f"{kind.__name__} has no place for the temporal module {name!r}; choose a ResNet")
    {ResNet: _into_resnet, MobileNetV2: _into_mobilenet, TinyNet: _into_tiny}[kind](backbone, segments, temporal)
    return backbone


def _shifted(net: nn.Module, segments: int, temporal: Temporal) -> Shifted:
    return Shifted(net, segments, temporal.div, online=temporal.shift == "online")


def _into_resnet(net: ResNet, segments: int, temporal: Temporal) -> None:
    if temporal.place == "branch":
        raise ValueError("a shift at place=branch is MobileNetV2's; ResNets have blockres and block")
    if temporal.non_local and (len(net.layer2) < 4 or len(net.layer3) < 6):
        raise ValueError("non-local blocks need a ResNet of depth 34 or more")
    # The released ResNet-101 models shift in every second block only.
    every = 2 if len(net.layer3) >= 23 and temporal.place == "blockres" else 1
    for name in ("layer1", "layer2", "layer3", "layer4"):
        frames = segments // 2 if temporal.pool and name != "layer1" else segments
        stage = getattr(net, name)
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
        raise ValueError("a shift at place=block is a ResNet's; MobileNetV2 has blockres and branch")
    for block in net.layers[1:-1]:
        if temporal.place == "branch":
            block.conv = _shifted(block.conv, segments, temporal)
        elif block.use_res_connect and len(block.conv) > 3:  # it has an identity and an expansion
            block.conv[0][0] = _shifted(block.conv[0][0], segments, temporal)


def _into_tiny(net: TinyNet, segments: int, temporal: Temporal) -> None:
    if temporal.place != "blockres":
        raise ValueError(f"the tiny nets have no blocks: the place of a shift must be blockres, not {temporal.place}")
    for index in range(3, len(net.layers), 3):  # every convolution but the first, which sees pixels
        conv = net.layers[index]
        channels = conv.in_channels
        if temporal.adaptive:
            conv = Adapted(conv, channels, segments)
        if temporal.shift != "none":
            conv = _shifted(conv, segments, temporal)
        net.layers[index] = conv


def with_flow_input(backbone: nn.Module, channels: int) -> nn.Module:
    """Gives the first convolution `channels` inputs (optical flow), each with the mean of its RGB kernels.

    Source: spec tsm section 2.9; no rescaling, so activations grow with the number of channels.
    """
    name, conv = next((name, part) for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d))
    wider = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        wider.weight.copy_(conv.weight.mean(1, keepdim=True).expand_as(wider.weight))
        if conv.bias is not None:
            wider.bias.copy_(conv.bias)
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, wider)
    return backbone
