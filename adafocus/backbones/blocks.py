"""Positions of temporal modules in networks of torchvision and timm: one rule for each class of residual block.

TSM and TAM act on the residual branch of a block, before its first convolution that mixes channels (TSM, arXiv
1811.08383, figure 3b), so that the identity path keeps the present frame. In ResNets and RegNets TAM goes before the
second convolution, as in liu-zhy/temporal-adaptive-module. A ConvNeXt block begins with a depthwise convolution, whose
pointwise layers work on channels-last maps; there both modules go to the beginning of the branch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Rule(NamedTuple):
    """The positions of temporal modules in a class of blocks.

    Attributes:
        shift: path of the convolution whose input is shifted.
        adaptive: path of the convolution whose input TAM filters; empty: the same path.
        identity: name of the attribute that is False in blocks without identity path, which get no modules, as with
            MobileNetV2 in TSM. Empty: all blocks get modules, as with ResNet.
    """

    shift: str
    adaptive: str = ""
    identity: str = ""


#: Class of a block -> its rule; None: a block without an expansion or without convolutions, which stays as it is.
RULES: dict[str, Rule | None] = {
    # ResNet, ResNeXt, Wide ResNet
    "torchvision.models.resnet.BasicBlock": Rule("conv1", "conv2"),
    "torchvision.models.resnet.Bottleneck": Rule("conv1", "conv2"),
    "timm.models.resnet.BasicBlock": Rule("conv1", "conv2"),
    "timm.models.resnet.Bottleneck": Rule("conv1", "conv2"),
    # MobileNetV2, V3, V4 and EfficientNet
    "torchvision.models.mobilenetv2.InvertedResidual": Rule("conv.0.0", identity="use_res_connect"),
    "torchvision.models.mobilenetv3.InvertedResidual": Rule("block.0.0", identity="use_res_connect"),
    "torchvision.models.efficientnet.MBConv": Rule("block.0.0", identity="use_res_connect"),
    "torchvision.models.efficientnet.FusedMBConv": Rule("block.0.0", identity="use_res_connect"),
    "timm.models._efficientnet_blocks.InvertedResidual": Rule("conv_pw", identity="has_skip"),
    "timm.models._efficientnet_blocks.EdgeResidual": Rule("conv_exp", identity="has_skip"),
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": Rule("pw_exp.conv", identity="has_skip"),
    "timm.models._efficientnet_blocks.ConvBnAct": Rule("conv", identity="has_skip"),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": None,
    "timm.models._efficientnet_blocks.MobileAttention": None,
    # ConvNeXt V1 and V2
    "torchvision.models.convnext.CNBlock": Rule("block.0"),
    "timm.models.convnext.ConvNeXtBlock": Rule("conv_dw"),
    # RegNet X, Y, Z and V
    "torchvision.models.regnet.ResBottleneckBlock": Rule("f.a.0", "f.b.0"),
    "timm.models.regnet.Bottleneck": Rule("conv1.conv", "conv2.conv"),
    "timm.models.regnet.PreBottleneck": Rule("conv1", "conv2"),
    # RepViT: only the channel mixer has an identity path that is separate from the branch
    "timm.models.repvit.RepViTBlock": Rule("channel_mixer.conv1.c"),
}
#: Attributes by which the libraries mark residual blocks.
_MARKS = ("drop_path", "drop_path1", "stochastic_depth", "use_res_connect")


def branches(network: nn.Module) -> list[tuple[str, str]]:
    """Returns the paths of the convolutions that get the shift and TAM, a pair for each block in order.

    Networks with a stage of 23 blocks or more get them in every second block, as `make_temporal_shift` in
    ops/temporal_shift.py of mit-han-lab/temporal-shift-module does for ResNet-101.

    Raises:
        ValueError: the network has a residual block that is not in the table, or none at all.
    """
    found: list[tuple[str, Rule, bool]] = []  # path of the block, its rule, whether its number in its stage is odd
    stages: dict[str, int] = {}
    for path, module in network.named_modules():
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        if name not in RULES:
            if any(hasattr(module, mark) for mark in _MARKS):
                raise ValueError(_unknown(name))
            continue
        stage = path.rpartition(".")[0]
        stages[stage] = stages.get(stage, 0) + 1
        if (rule := RULES[name]) is not None and _has_branch(module, rule):
            found.append((path, rule, stages[stage] % 2 == 0))
    if not found and not stages:
        raise ValueError(_unknown(type(network).__name__))
    if not found:
        raise ValueError(f"{type(network).__name__} has no block with an identity path for temporal modules")
    sparse = max(stages.values()) >= 23
    return [
        (f"{path}.{rule.shift}", f"{path}.{rule.adaptive or rule.shift}")
        for path, rule, odd in found
        if not (sparse and odd)
    ]


def _has_branch(block: nn.Module, rule: Rule) -> bool:
    """Returns whether a block has an identity path and a first convolution that mixes channels."""
    if not rule.identity:
        return True
    conv = block.get_submodule(rule.shift)
    return bool(getattr(block, rule.identity)) and isinstance(conv, nn.Conv2d) and conv.groups == 1


def _unknown(name: str) -> str:
    families = "ResNet, MobileNetV2, V3 and V4, EfficientNet, ConvNeXt, RegNet and RepViT"
    return (
        f"temporal modules have no position in {name}; they go into {families} of torchvision and timm: choose one "
        f"of these, or backbone.shift=none backbone.adaptive=false"
    )
