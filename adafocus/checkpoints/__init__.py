"""Loading of checkpoints from the papers' repositories: detects the layout of a file and renames its keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from adafocus.checkpoints.adafocus_v1 import from_adafocus_v1
from adafocus.checkpoints.adafocus_v2 import from_adafocus_v2, from_adafocus_v2_tsm
from adafocus.checkpoints.files import State, fingerprint, load_file, save_safetensors, tensors
from adafocus.checkpoints.fit import StartReport, fit, start_from, start_part
from adafocus.checkpoints.imagenet import HEADS, IMAGENET, backbone_state, imagenet_weights, mobilenet_to_torchvision
from adafocus.checkpoints.tsm import from_mmaction2, from_tsm, from_tsm_online
from adafocus.checkpoints.uni_adafocus import from_uni_adafocus, from_uni_adafocus_tsm
from adafocus.core.errors import UserError
from adafocus.core.versions import current_state

__all__ = [
    "IMAGENET",
    "LoadReport",
    "Source",
    "StartReport",
    "backbone_state",
    "convert",
    "detect",
    "fit",
    "from_adafocus_v1",
    "from_adafocus_v2",
    "from_adafocus_v2_tsm",
    "from_mmaction2",
    "from_tsm",
    "from_tsm_online",
    "from_uni_adafocus",
    "from_uni_adafocus_tsm",
    "imagenet_weights",
    "load_checkpoint",
    "fingerprint",
    "load_file",
    "load_start",
    "mobilenet_to_torchvision",
    "save_safetensors",
    "start_from",
    "start_part",
    "tensors",
]


@dataclass(frozen=True)
class Source:
    """A layout of published checkpoints: its name in messages, and the function that renames its keys."""

    name: str
    convert: Callable[[State], State]


SOURCES = {
    "adafocus": Source("our own", current_state),
    "adafocus_v1": Source("official AdaFocus V1", from_adafocus_v1),
    "adafocus_v2": Source("official AdaFocus V2", from_adafocus_v2),
    "adafocus_v2_tsm": Source("official AdaFocus V2 on TSM", from_adafocus_v2_tsm),
    "uni_adafocus": Source("official Uni-AdaFocus", from_uni_adafocus),
    "uni_adafocus_tsm": Source("official Uni-AdaFocus-TSM", from_uni_adafocus_tsm),
    "tsm": Source("official TSM or TAM", from_tsm),
    "tsm_online": Source("official online TSM", from_tsm_online),
    "mmaction2": Source("MMAction2", from_mmaction2),
}


@dataclass
class LoadReport:
    """Result of loading a checkpoint: which of its entries were loaded."""

    source: str
    loaded: int
    dropped: list[str] = field(default_factory=list)
    classes: list[str] | None = None  # class names by id, if the file has them
    left: list[str] = field(default_factory=list)  # keys that the file lacks but that are not needed

    def __str__(self) -> str:
        dropped = f", {len(self.dropped)} unused entries dropped ({self.dropped[0]} ...)" if self.dropped else ""
        missing = f"{len(self.left)} missing that are not needed ({self.left[0]} ...)" if self.left else "none missing"
        return f"{self.source} layout, {self.loaded} tensors loaded, {missing}, none unexpected{dropped}"


def detect(state: State) -> str | None:
    """Returns the layout of a state dict, a key of SOURCES, from its keys alone; None if it is unknown."""
    if any(key.startswith("glancer.net.") for key in state) and any(key.startswith("focuser.net.") for key in state):
        return "adafocus_v1"
    if any(key.startswith("policy_stn.gru.") for key in state) and any(key.startswith("global_CNN.") for key in state):
        return "adafocus_v2"
    if "policy_stn.10.weight" in state and any(key.startswith("global_CNN.base_model.") for key in state):
        return "adafocus_v2_tsm"
    if any(key.startswith("temporal_policy.Tconv.") for key in state):
        nested = any(key.startswith("global_CNN.base_model.") for key in state)
        return "uni_adafocus_tsm" if nested else "uni_adafocus"
    if any(key.startswith("base_model.") for key in state):
        return "tsm"
    if any(key.startswith("cls_head.") for key in state) and any(key.startswith("backbone.") for key in state):
        return "mmaction2"
    if "features.0.0.weight" in state and "classifier.weight" in state and "features.3.conv.0.weight" in state:
        return "tsm_online"
    if any(key.startswith(("glance.", "glance_net.", "focus_net.", "backbone.")) for key in state):
        return "adafocus"
    return None


def convert(content: Mapping[str, Any], path: Path) -> tuple[str, State, State]:
    """Renames the tensors of a file; returns layout, original state dict, and state dict with this package's keys."""
    state = tensors(content, f"checkpoint {path}")
    source = detect(state)
    if source is None:
        raise UserError(f"checkpoint {path}: unknown layout (first keys: {', '.join(list(state)[:3]) or 'none'})")
    try:
        return source, state, SOURCES[source].convert(state)
    except (IndexError, KeyError, ValueError, RuntimeError) as error:
        # Exceptions of a converter for tensors of unexpected shapes or unknown keys.
        raise UserError(
            f"checkpoint {path}: {SOURCES[source].name} layout, but unexpected keys or shapes "
            f"({str(error).partition(chr(10))[0]})"
        ) from error


def load_checkpoint(
    path: Path, model: nn.Module, content: Mapping[str, Any] | None = None, *, without: tuple[str, ...] = ()
) -> LoadReport:
    """Loads a checkpoint of this package or of a paper's repository into `model`, completely or not at all.

    Args:
        path: the file.
        model: the network.
        content: content of the file, if it has been read already.
        without: prefixes of keys that the file may lack, because they are not needed.
    """
    content = load_file(path) if content is None else content
    source, state, ours = convert(content, path)
    dropped = []
    if source in ("adafocus_v2", "uni_adafocus"):  # both backbones contain unused ImageNet heads
        dropped = [key for key in state if HEADS.match(re.sub(r"^(global|local)_CNN\.", "", key))]
    if source == "adafocus_v1" and not without and not any(key.startswith("policy.") for key in ours):
        raise UserError(
            f"{path} was saved in stage 1 of AdaFocus V1 and has no policy: evaluate it with "
            f"stage=1 (random patches), or "
            f"train the policy with init.from={path} stage=2"
        )
    left = fit(model, ours, str(path), without)
    classes = content.get("classes")
    names = [str(name) for name in classes] if isinstance(classes, list) else None
    return LoadReport(SOURCES[source].name, len(ours), dropped, names, left)


def load_start(path: Path, model: nn.Module, part: str | None = None) -> StartReport:
    """Initializes `model` from a checkpoint of this package or of a paper's repository, with the entries that fit.

    Args:
        path: the file.
        model: the network.
        part: "glance" or "focus" loads only this network (`start_part`); None loads all (`start_from`).
    """
    _, _, ours = convert(load_file(path), path)
    return start_from(model, ours, str(path)) if part is None else start_part(model, part, ours, str(path))
