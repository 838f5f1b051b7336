"""Renames the keys of AdaFocus V2 checkpoints (LeapLabTHU/AdaFocusV2)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from adafocus.checkpoints.files import State
from adafocus.checkpoints.imagenet import backbone_state
from adafocus.checkpoints.tsm import from_tsm


def from_adafocus_v2(state: State) -> State:
    """Renames the keys of the network in models/adafocus_v2.py, for any number of frames and classes and any patch
    size.

    The unused ImageNet heads of both backbones are dropped.
    """
    prefixes = {
        "global_CNN_fc.": "glance_head.",
        "local_CNN_fc.": "focus_head.",
        "policy_stn.encoder.": "policy.encoder.",
        "policy_stn.gru.": "policy.gru.",
        "policy_stn.fc.0.": "policy.corner.",
        "classifier.mlp.layers.0.": "classifier.hidden.",
        "classifier.mlp.layers.1.": "classifier.norm.",
    }
    ours: State = {}
    for part, name in (("global_CNN.", "glance_net."), ("local_CNN.", "focus_net.")):
        backbone = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        ours |= {name + key: value for key, value in backbone_state(backbone).items()}
    steps: dict[str, dict[int, Tensor]] = {"weight": {}, "bias": {}}
    for key, value in state.items():
        step = re.match(r"classifier\.classifiers\.(\d+)\.1\.(weight|bias)$", key)
        if step:
            steps[step.group(2)][int(step.group(1))] = value
        elif not key.startswith(("global_CNN.", "local_CNN.")):
            prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
            ours[key if prefix is None else prefixes[prefix] + key.removeprefix(prefix)] = value
    for leaf, parts in steps.items():
        if parts:
            ours[f"classifier.{leaf}"] = torch.stack([parts[step] for step in sorted(parts)])
    return ours


def from_adafocus_v2_tsm(state: State) -> State:
    """Renames the keys of the network in main.py for Something-Something and Jester (TSM), for any sizes."""
    ours: State = {}
    for part, name in (("global_CNN.", "glance"), ("local_CNN.", "focus")):
        own = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        heads = {"new_fc.": f"{name}_head.predict.", "new_new_fc.": f"{name}_head.learn."}
        for prefix, place in heads.items():
            ours |= {place + key.removeprefix(prefix): own[key] for key in own if key.startswith(prefix)}
        net = from_tsm({key: value for key, value in own.items() if key.startswith("base_model.")})
        ours |= {f"{name}_net" + key.removeprefix("backbone"): value for key, value in net.items()}
    policy = {key: value for key, value in state.items() if key.startswith("policy_stn.")}
    return ours | {key.replace("policy_stn.", "policy.layers."): value for key, value in policy.items()}
