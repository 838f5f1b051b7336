"""Renames the keys of Uni-AdaFocus checkpoints (LeapLabTHU/Uni-AdaFocus)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from adafocus.checkpoints.files import State
from adafocus.checkpoints.imagenet import backbone_state
from adafocus.checkpoints.tsm import from_tsm

_POLICIES = {"spatial_policy.encoder.": "spatial_policy.encoder.", "aux_fc.": "spatial_head."}
_STEPS = re.compile(r"classifier\.(global|local)_classifiers\.(\d+)\.1\.(weight|bias)$")


def from_uni_adafocus(state: State) -> State:
    """Renames the keys of models/uni_adafocus.py (long videos), for any sizes; ImageNet heads are dropped."""
    prefixes = {
        **_POLICIES,
        "global_CNN_fc.": "glance_head.",
        "local_CNN_fc.": "focus_head.",
        "classifier.global_mlp.layers.0.": "glance_steps.hidden.",
        "classifier.global_mlp.layers.1.": "glance_steps.norm.",
        "classifier.local_mlp.layers.0.": "focus_steps.hidden.",
        "classifier.local_mlp.layers.1.": "focus_steps.norm.",
    }
    ours = _policies(state)
    for part, name in (("global_CNN.", "glance_net."), ("local_CNN.", "focus_net.")):
        backbone = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        ours |= {name + key: value for key, value in backbone_state(backbone).items()}
    steps: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if step := _STEPS.match(key):
            name = f"{'glance' if step[1] == 'global' else 'focus'}_steps.{step[3]}"
            steps.setdefault(name, {})[int(step[2])] = value
        elif not key.startswith(("global_CNN.", "local_CNN.", "temporal_policy.")):
            prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
            ours[key if prefix is None else prefixes[prefix] + key.removeprefix(prefix)] = value
    return ours | {name: torch.stack([parts[step] for step in sorted(parts)]) for name, parts in steps.items()}


def from_uni_adafocus_tsm(state: State) -> State:
    """Renames the keys of Uni-AdaFocus-TSM (Something-Something and Jester), for any sizes."""
    ours = _policies(state)
    for part, name in (("global_CNN.", "glance"), ("local_CNN.", "focus")):
        own = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        heads = {"new_fc.": f"{name}_head.predict.", "new_new_fc.": f"{name}_head.learn."}
        for prefix, place in heads.items():
            ours |= {place + key.removeprefix(prefix): own[key] for key in own if key.startswith(prefix)}
        net = from_tsm({key: value for key, value in own.items() if key.startswith("base_model.")})
        ours |= {f"{name}_net" + key.removeprefix("backbone"): value for key, value in net.items()}
    for prefix, place in _POLICIES.items():
        ours |= {place + key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    return ours


def _policies(state: State) -> State:
    """Renames the keys of both policies; 2-d convolutions with kernels (k, 1) become 1-d convolutions over time."""
    prefix = "temporal_policy.Tconv."
    return {
        f"frame_policy.encoder.{key.removeprefix(prefix)}": value[..., 0] if value.ndim == 4 else value
        for key, value in state.items()
        if key.startswith(prefix)
    }
