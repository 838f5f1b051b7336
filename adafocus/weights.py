"""Weights of others under our names: files read as data, and one pure function a source.

Nothing here ever executes code from a file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from adafocus.errors import UserError

State = dict[str, Tensor]
#: torchvision's weights with which the seeds start their backbones.
IMAGENET = {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights", "mobilenet_v2": "MobileNet_V2_Weights"}
_HEADS = re.compile(r"^(fc|classifier)(\.\d+)?\.(weight|bias)$")


@dataclass
class LoadReport:
    """What became of the entries of a checkpoint."""

    source: str
    loaded: int
    dropped: list[str] = field(default_factory=list)
    classes: list[str] | None = None  # class names by id, where the file holds them

    def __str__(self) -> str:
        dropped = f", {len(self.dropped)} unused entries dropped ({self.dropped[0]} ...)" if self.dropped else ""
        return f"{self.source} layout, {self.loaded} tensors loaded, none missing, none unexpected{dropped}"


def load_file(path: Path) -> dict[str, object]:
    """The content of a .safetensors, .pt, .pth or .pth.tar file.

    Raises:
        UserError: missing, damaged, or a pickle that holds more than tensors and plain data (which could run code).
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file as load_safetensors

        try:
            return dict(load_safetensors(path))
        except SafetensorError as error:
            raise UserError(f"checkpoint {path} is damaged ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is refused: it is damaged or holds more than tensors and plain data, "
            f"which could run code when read"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"checkpoint {path} is damaged ({str(error).splitlines()[0] if str(error) else 'no content'})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def tensors(content: Mapping[str, object]) -> State:
    """The tensors of a checkpoint by key: out of `state_dict` or `model` if nested, without DataParallel's `module.`."""
    nested = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {key: value for key, value in nested.items() if isinstance(value, Tensor)}
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def mobilenet_to_torchvision(key: str) -> str:
    """A key of the third-party (tonylins) MobileNetV2 as torchvision's; torchvision's own keys stay as they are."""
    match = re.match(r"features\.(\d+)\.conv\.(\d+)\.(.*)", key)
    if not match:
        return re.sub(r"^classifier\.(weight|bias)$", r"classifier.1.\1", key)
    block, layer, leaf = match.groups()
    first = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
    other = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    return f"features.{block}.conv.{(first if block == '1' else other)[layer]}.{leaf}"


def backbone_state(state: State) -> State:
    """An ImageNet state (torchvision's or tonylins') under the keys of our backbones, without the head."""
    flat = any(re.match(r"features\.2\.conv\.0\.weight", key) for key in state)
    renamed = {mobilenet_to_torchvision(key) if flat else key: value for key, value in state.items()}
    return {
        f"layers.{key.removeprefix('features.')}" if key.startswith("features.") else key: value
        for key, value in renamed.items()
        if not _HEADS.match(key)
    }


def imagenet_weights(backbone: nn.Module, name: str, source: str) -> None:
    """Fills a backbone with ImageNet weights.

    Args:
        backbone: a network of `adafocus.backbones`.
        name: its name there.
        source: "imagenet" (torchvision's V1 weights), "none" (leave it as it is) or a file in torchvision's or the
            third-party MobileNetV2's layout.

    Raises:
        UserError: the weights cannot be fetched or do not fit.
    """
    if source == "none":
        return
    if source != "imagenet":
        fit(backbone, backbone_state(tensors(load_file(Path(source).expanduser()))), f"{name} from {source}")
        return
    if name not in IMAGENET:
        raise UserError(f"there are no ImageNet weights for backbone {name}; set backbone.weights=none")
    import torchvision.models

    weights = getattr(torchvision.models, IMAGENET[name]).IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"ImageNet weights of {name} cannot be fetched from {weights.url} ({error}); start without them "
            f"(backbone.weights=none) or from a file (backbone.weights=FILE)"
        ) from error
    fit(backbone, backbone_state(state), f"torchvision's {name}")


def from_adafocus_v2(state: State) -> State:
    """The official untrimmed-video layout of AdaFocus V2 (any frames, classes, patch; both glances) under our names.

    The ImageNet heads that both backbones carry along unused are left out.
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
    for part, name in (("global_CNN.", "glance."), ("local_CNN.", "focus.")):
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


def detect(state: State) -> str | None:
    """Which source a state comes from, by its keys: "adafocus_v2", "adafocus" (our own layout) or None."""
    if any(key.startswith("policy_stn.gru.") for key in state) and any(key.startswith("global_CNN.") for key in state):
        return "adafocus_v2"
    if any(key.startswith(("glance.", "backbone.")) for key in state):
        return "adafocus"
    return None


def load_checkpoint(path: Path, model: nn.Module) -> LoadReport:
    """Loads a file of ours or an official one into `model`, completely or not at all."""
    content = load_file(path)
    state = tensors(content)
    source = detect(state)
    if source is None:
        raise UserError(f"checkpoint {path}: unknown layout (first keys: {', '.join(list(state)[:3]) or 'none'})")
    ours = from_adafocus_v2(state) if source == "adafocus_v2" else state
    dropped = (
        [key for key in state if _HEADS.match(re.sub(r"^(global|local)_CNN\.", "", key))] if ours is not state else []
    )
    fit(model, ours, str(path))
    name = {"adafocus_v2": "official AdaFocus V2", "adafocus": "our own"}[source]
    classes = content.get("classes")
    return LoadReport(name, len(ours), dropped, classes if isinstance(classes, list) else None)


def fit(model: nn.Module, state: State, source: str) -> None:
    """Strict loading; one line says what does not fit."""
    own = model.state_dict()
    # A frozen zero counter that old files lack changes nothing.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {word} (first: {keys[0]})"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        if shapes:
            key = shapes[0]
            parts.append(
                f"{len(shapes)} of another shape (first: {key} {tuple(state[key].shape)}, here {tuple(own[key].shape)})"
            )
        raise UserError(
            f"{source} is a checkpoint of another model: {'; '.join(parts)}; choose the matching backbone, patch, segments and dataset"
        )
    model.load_state_dict(state, strict=False)
