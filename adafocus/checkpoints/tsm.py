"""Renames the keys of TSN, TSM, NL-TSM, online TSM and TAM checkpoints, from their repositories and from MMAction2."""

from __future__ import annotations

import re

import torch

from adafocus.checkpoints.files import State
from adafocus.checkpoints.imagenet import mobilenet_to_torchvision

#: Indices of the MobileNetV2 blocks with an identity path and an expansion layer, which have the shift.
SHIFTED_BLOCKS = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)


def from_tsm(state: State) -> State:
    """Renames `base_model.*`, with the classifier under `new_fc`, `base_model.fc` or `base_model.classifier`.

    Source: class `TSN` in ops/models.py of mit-han-lab/temporal-shift-module and liu-zhy/temporal-adaptive-module;
    older names of TAM's branches as in tools/transfer_params.py of the latter.
    """
    adaptive = any(".tam." in key or ".self_conv." in key for key in state)
    ours: State = {}
    for key, value in state.items():
        head = re.match(r"(?:new_fc|base_model\.(?:fc|classifier))(?:\.\d+)?\.(weight|bias)$", key)
        if head:
            ours[f"head.{head.group(1)}"] = value
            continue
        name = key.removeprefix("base_model.")
        name = name.replace("self_conv.conv_f.", "tam.G.").replace("self_conv.conv_g.", "tam.L.")
        if adaptive:
            name = _adapted(name, r"net\.")
        ours[_backbone_key(name)] = value
    return ours


def from_tsm_online(state: State) -> State:
    """Renames the keys of online_demo/mobilenet_v2_tsm.py, which have no prefix and no key of the shift."""
    ours: State = {}
    for key, value in state.items():
        if key.startswith("classifier."):
            ours[key.replace("classifier.", "head.")] = value
            continue
        shifted = re.match(r"features\.(\d+)\.conv\.0\.weight$", key)
        if shifted and int(shifted.group(1)) in SHIFTED_BLOCKS:
            key = key.replace("conv.0.weight", "conv.0.net.weight")
        ours[_backbone_key(key)] = value
    return ours


def from_mmaction2(state: State) -> State:
    """Renames the keys of TSN, TSM, NL-TSM and TANet with ResNets from open-mmlab/mmaction2."""
    adaptive = any(".tam." in key for key in state)
    ours: State = {}
    for key, value in state.items():
        name = key.removeprefix("backbone.")
        if key.startswith("cls_head.fc_cls."):
            ours[key.replace("cls_head.fc_cls.", "head.")] = value
            continue
        # A convolution, its norm and its activation are one module there.
        name = re.sub(r"(^|\.)conv(\d)\.conv\.", r"\1conv\2.", name)
        name = re.sub(r"(^|\.)conv(\d)\.bn\.", r"\1bn\2.", name)
        name = name.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
        name = re.sub(r"non_local_block\.(g\.0|phi\.0|theta)\.conv\.", r"nl.\1.", name)
        if "non_local_block.conv_out.conv.weight" in name:
            bias = name.replace("non_local_block.conv_out.conv.weight", "nl.W.0.bias")
            ours[f"backbone.{bias}"] = torch.zeros_like(value[:, 0].flatten())
        name = name.replace("non_local_block.conv_out.conv.", "nl.W.0.").replace(
            "non_local_block.conv_out.bn.", "nl.W.1."
        )
        if adaptive:
            name = _adapted(name, r"block\.")
        ours[f"backbone.{name}"] = value
    return ours


def _adapted(name: str, wrapper: str) -> str:
    """Renames TAM's keys: in the repositories TAM wraps a block, here it wraps the block's second convolution."""
    name = re.sub(rf"^(layer\d\.\d+\.){wrapper}conv2\.", r"\1conv2.net.", name)
    name = re.sub(rf"^(layer\d\.\d+\.){wrapper}", r"\1", name)
    return re.sub(r"^(layer\d\.\d+\.)tam\.", r"\1conv2.tam.", name)


def _backbone_key(name: str) -> str:
    branch = re.match(r"(features\.\d+\.conv\.)net\.(.*)", name)  # WavesUR/embedded_TSM shifts the whole branch
    if branch:
        head, _, tail = mobilenet_to_torchvision(branch.group(1) + branch.group(2)).partition(".conv.")
        name = f"{head}.conv.net.{tail}"
    else:
        name = mobilenet_to_torchvision(name)
    return "backbone." + re.sub(r"^features\.", "layers.", name)
