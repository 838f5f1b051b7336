"""Initializes backbones with ImageNet weights, torchvision's or from a file."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import URLError

from torch import nn

from adafocus.checkpoints.files import State, load_file, tensors
from adafocus.checkpoints.fit import fit
from adafocus.core.errors import UserError

#: The torchvision weights that the papers' repositories start from.
IMAGENET = {
    "resnet18": "ResNet18_Weights",
    "resnet34": "ResNet34_Weights",
    "resnet50": "ResNet50_Weights",
    "resnet101": "ResNet101_Weights",
    "resnet152": "ResNet152_Weights",
    "mobilenet_v2": "MobileNet_V2_Weights",
}
HEADS = re.compile(r"^(fc|classifier)(\.\d+)?\.(weight|bias)$")


def mobilenet_to_torchvision(key: str) -> str:
    """Renames a key of tonylins' MobileNetV2 to torchvision's; torchvision's own keys are returned unchanged."""
    match = re.match(r"features\.(\d+)\.conv\.(\d+)\.(.*)", key)
    if not match:
        return re.sub(r"^classifier\.(weight|bias)$", r"classifier.1.\1", key)
    block, layer, leaf = match.groups()
    first = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
    other = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    return f"features.{block}.conv.{(first if block == '1' else other)[layer]}.{leaf}"


def backbone_state(state: State) -> State:
    """Renames an ImageNet state dict (torchvision's or tonylins') for this package's backbones and drops the head."""
    flat = any(re.match(r"features\.2\.conv\.0\.weight", key) for key in state)
    renamed = {mobilenet_to_torchvision(key) if flat else key: value for key, value in state.items()}
    return {
        f"layers.{key.removeprefix('features.')}" if key.startswith("features.") else key: value
        for key, value in renamed.items()
        if not HEADS.match(key)
    }


def imagenet_weights(backbone: nn.Module, name: str, source: str) -> None:
    """Fills a backbone with ImageNet weights.

    Args:
        backbone: a network of `adafocus.backbones`.
        name: name of the backbone.
        source: "imagenet" (torchvision's V1 weights), "none" (leave it as it is) or a file in torchvision's or the
            third-party MobileNetV2's layout.

    Raises:
        UserError: the weights cannot be fetched or do not fit.
    """
    if source == "none":
        return
    if source != "imagenet":
        fit(backbone, backbone_state(tensors(load_file(Path(source).expanduser()), source)), f"{name} from {source}")
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
