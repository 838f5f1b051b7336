"""Helpers that make checkpoints in the layouts of the released programs, from the parameter names of our networks."""

from __future__ import annotations

import re

import torch
from helpers import golden_weights
from torch import Tensor

from adafocus.backbones import BACKBONES
from adafocus.methods.adafocus_v2.model import AdaFocusV2


def official(glance: str, segments: int, classes: int, **changes: int) -> tuple[dict[str, Tensor], AdaFocusV2]:
    """A state dictionary under the names of LeapLabTHU/AdaFocusV2, and our model on the meta device that it fits."""
    arguments = {
        "num_classes": classes,
        "segments": segments,
        "patch_size": 64,
        "frame_size": 96,
        "policy_hidden": 16,
        "classifier_width": 32,
        **changes,
    }
    with torch.device("meta"):
        model = AdaFocusV2(BACKBONES[glance](), BACKBONES["resnet50"](), **arguments)
    names = {
        "glance_head": "global_CNN_fc",
        "focus_head": "local_CNN_fc",
        "policy.encoder": "policy_stn.encoder",
        "policy.gru": "policy_stn.gru",
        "policy.corner": "policy_stn.fc.0",
        "classifier.hidden": "classifier.mlp.layers.0",
        "classifier.norm": "classifier.mlp.layers.1",
        "glance_net.": "global_CNN.",
        "focus_net.": "local_CNN.",
    }
    state = {}
    for key, value in model.state_dict().items():
        if key in ("classifier.weight", "classifier.bias"):
            for step in range(segments):
                state[f"module.classifier.classifiers.{step}.1.{key.split('.')[1]}"] = value[step]
            continue
        old, new = next((old, new) for old, new in names.items() if key.startswith(old))
        name = new + key.removeprefix(old)
        state["module." + name.replace("global_CNN.layers.", "global_CNN.features.")] = value
    return {key: golden_weights.weight(key, value.shape) for key, value in state.items()}, model


def official_key(key: str, case: str) -> str:
    """The name that TSM's or TAM's repository gives to a parameter of our recognizer, without the code under test."""
    if key.startswith("head."):
        return f"module.new_fc.{key[5:]}"
    name = key.removeprefix("backbone.")
    if "tanet" in case:
        name = re.sub(r"^(layer\d\.\d\.)conv2\.(tam|net)", r"\1\2", name)
        name = re.sub(r"^(layer\d\.\d\.)net\.", r"\1net.conv2.", name)
        name = re.sub(r"^(layer\d\.\d\.)(?!tam|net)", r"\1net.", name)
    if "mobilenet" in case:
        block = re.match(r"layers\.(\d+)\.conv\.(net\.)?(.*)", name)
        if not block:
            return "module.base_model." + name.replace("layers.", "features.")
        first = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
        other = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
        place, leaf = re.match(r"(\d\.\d|\d)\.(.*)", block[3]).groups()
        layer = (first if block[1] == "1" else other)[place]
        name = f"features.{block[1]}.conv.{block[2] or ''}{layer}.{leaf}"
    return f"module.base_model.{name}"


_UNI = {
    "glance_head.predict.": "global_CNN.new_fc.",
    "glance_head.learn.": "global_CNN.new_new_fc.",
    "focus_head.predict.": "local_CNN.new_fc.",
    "focus_head.learn.": "local_CNN.new_new_fc.",
    "glance_head.1.": "global_CNN_fc.1.",
    "focus_head.1.": "local_CNN_fc.1.",
    "spatial_head.": "aux_fc.",
    "frame_policy.encoder.": "temporal_policy.Tconv.",
    "spatial_policy.": "spatial_policy.",
    "glance_steps.hidden.": "classifier.global_mlp.layers.0.",
    "glance_steps.norm.": "classifier.global_mlp.layers.1.",
    "focus_steps.hidden.": "classifier.local_mlp.layers.0.",
    "focus_steps.norm.": "classifier.local_mlp.layers.1.",
}


def official_uni(model: torch.nn.Module, *, tsm: bool) -> dict[str, Tensor]:
    """A state dictionary under the names of LeapLabTHU/Uni-AdaFocus, for our model, with the golden weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in model.state_dict().items():
        shape = tuple(value.shape)
        if key.startswith(("glance_net.", "focus_net.")):
            part = "global_CNN." if key.startswith("glance_net.") else "local_CNN."
            name = official_key(key.partition(".")[2], "mobilenet" if part == "global_CNN." else "resnet")
            name = name.removeprefix("module.")
            shapes[f"module.{part}{name if tsm else name.removeprefix('base_model.')}"] = shape
        elif key in ("glance_steps.weight", "glance_steps.bias", "focus_steps.weight", "focus_steps.bias"):
            kind = "global" if key.startswith("glance") else "local"
            for step in range(shape[0]):
                shapes[f"module.classifier.{kind}_classifiers.{step}.1.{key.split('.')[1]}"] = shape[1:]
        else:
            old = next(prefix for prefix in _UNI if key.startswith(prefix))
            conv = old.startswith("frame_policy") and len(shape) == 3
            shapes["module." + _UNI[old] + key.removeprefix(old)] = (*shape, 1) if conv else shape
    return golden_weights.state(shapes)
