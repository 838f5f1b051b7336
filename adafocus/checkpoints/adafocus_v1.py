"""Renames the keys of AdaFocus V1 checkpoints, which have sections `glancer`, `focuser`, `fc` and `policy`."""

from __future__ import annotations

import re

from adafocus.checkpoints.files import State
from adafocus.checkpoints.imagenet import backbone_state
from adafocus.checkpoints.tsm import from_tsm


def from_adafocus_v1(state: State) -> State:
    """Renames a state dict whose keys start with `glancer.`, `focuser.`, `classifier.` and `policy.`.

    Both networks are covered, on plain backbones and on TSM. Source: blackfeather-wang/AdaFocus, main_dist.py
    (ActivityNet) and stage1.py, stage2.py, stage3.py (Something-Something), which write these files.
    """
    ours: State = {}
    tsm = "classifier.weight" in state
    glance = {k.removeprefix("glancer.net."): v for k, v in state.items() if k.startswith("glancer.net.")}
    head = re.compile(r"classifier\.(?:1\.)?(weight|bias)$")
    for key in [key for key in glance if head.match(key)]:
        place = "glance_head." if tsm else "glance_head.1."
        ours[place + key.rpartition(".")[2]] = glance.pop(key)
    focus = {k.removeprefix("focuser.net."): v for k, v in state.items() if k.startswith("focuser.net.")}
    if tsm:
        numbered = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
        named = {
            re.sub(r"^base_model\.(\d)\.", lambda m: f"base_model.{numbered[m[1]]}.", k): v for k, v in focus.items()
        }
        nets = (("glance", {f"base_model.{k}": v for k, v in glance.items()}), ("focus", named))
        for name, net in nets:
            ours |= {f"{name}_net" + key.removeprefix("backbone"): value for key, value in from_tsm(net).items()}
        ours |= {key: value for key, value in state.items() if key.startswith("classifier.")}
    else:
        ours |= {f"focus_head.{leaf}": focus.pop(f"fc.{leaf}") for leaf in ("weight", "bias") if f"fc.{leaf}" in focus}
        for name, net in (("glance_net.", glance), ("focus_net.", focus)):
            ours |= {name + key: value for key, value in backbone_state(net).items()}
        for key in (key for key in state if key.startswith("classifier.")):
            ours[key.replace("classifier.fc.", "classifier.head.")] = state[key]
    # Without a convolution the published encoder gets flat maps; here a layer of the encoder flattens them.
    flat = not tsm and "policy.state_encoder.2.weight" in state
    for key, value in state.items():
        # `policy_old`, a copy that only the published training loop needs, is dropped.
        policy = re.match(r"(?:focuser\.policy\.policy|policy)\.(state_encoder|gru|actor|critic)\.(.*)", key)
        if policy:
            part, leaf = policy.groups()
            if flat and part == "state_encoder":
                leaf = f"{int(leaf[0]) + 1}{leaf[1:]}"
            leaf = leaf.removeprefix("0.") if part in ("actor", "critic") else leaf
            ours[f"policy.{part.replace('state_encoder', 'encoder')}.{leaf}"] = value
    return ours
