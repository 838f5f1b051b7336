"""Backbones that a folder describes: `backbone.focus=file/FOLDER`.

The folder has the format of timm and the Hugging Face Hub (`timm.models.save_for_hf`, `hf download timm/NAME`):
config.json names an architecture of timm, its arguments and its normalization, and model.safetensors (or
pytorch_model.bin) holds the weights. The override is replaced by the keys for this name, these options and weights, so
that a run and its checkpoints do not need the folder later. Nothing in it is executed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError

PREFIX = "file/"
_LARGEST = 2**20  # maximal size of config.json in bytes
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_folder(name: str) -> bool:
    """Returns whether a backbone's name in an override, with or without quotes, has the form file/FOLDER."""
    return name.strip("'\"").startswith(PREFIX)


def named(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces folders in a composed configuration by the name, options and weights of their networks.

    Weights set to a file or to none are kept; `imagenet` is replaced by the folder's weights.

    Raises:
        UserError: a folder does not describe a network.
    """
    backbone = values.get("backbone")
    if not isinstance(backbone, dict):
        return values
    found = dict(backbone)
    for role, key in (("focus", "weights"), ("glance", "glance_weights")):
        name = str(backbone.get(role) or "")
        if not is_folder(name):
            continue
        architecture, options, weights = _read(Path(name.removeprefix(PREFIX)).expanduser(), f"backbone.{role}")
        found[role], found[f"{role}_options"] = architecture, {**options, **(backbone.get(f"{role}_options") or {})}
        if (backbone.get(key) or backbone.get("weights")) == "imagenet":
            found["glance_weights"] = found.get("glance_weights") or backbone.get("weights")  # not the focus network's
            found[key] = str(weights) if weights is not None else "none"
    return {**values, "backbone": found}


def _read(folder: Path, key: str) -> tuple[str, dict[str, Any], Path | None]:
    """Reads name, options and weights file of a folder's network."""
    file = folder / "config.json"
    if folder.is_file():
        raise UserError(
            f"{key}=file/{folder} is a file, which does not name its network; write "
            f"{key}=timm/NAME backbone.weights={folder}"
        )
    if not file.is_file() or file.stat().st_size > _LARGEST:
        raise UserError(f"{key}=file/{folder}: no config.json of a timm network; write it with timm.models.save_for_hf")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is not a description of a network ({error})") from error
    content = content if isinstance(content, dict) else {}
    architecture, described = content.get("architecture"), content.get("pretrained_cfg") or content
    options = content.get("model_args") or {}
    if not (isinstance(architecture, str) and re.fullmatch(r"\w+", architecture)) or not isinstance(options, dict):
        raise UserError(f"{file} does not name an architecture of timm; write it with timm.models.save_for_hf")
    known = described if isinstance(described, dict) else {}
    options = {**{name: known[name] for name in ("mean", "std") if known.get(name)}, **options}
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    return f"timm/{architecture}", options, weights
