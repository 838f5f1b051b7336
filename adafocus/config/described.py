"""Networks that a folder describes as data: `backbone.focus=file/FOLDER`.

The folder is one as timm and the Hugging Face Hub keep them (`timm.models.save_for_hf`, `hf download timm/NAME`):
config.json names an architecture of timm, its arguments and its normalization, and model.safetensors (or
pytorch_model.bin) holds the weights. It becomes the plain keys that say the same, so that a run and its checkpoints do
not need the folder any more. Nothing in it is executed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adafocus.core.errors import UserError

PREFIX = "file/"
_LARGEST = 2**20  # bytes of a description
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_folder(name: str) -> bool:
    """Whether a typed name, perhaps in quotes, is that of a folder."""
    return name.strip("'\"").startswith(PREFIX)


def named(values: dict[str, Any]) -> dict[str, Any]:
    """A composed configuration in which folders are replaced by the name, options and weights of their networks.

    Weights that are typed (a file or none) stay; `imagenet` becomes the folder's.

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
    """Name, options and file of weights of a folder's network."""
    file = folder / "config.json"
    if folder.is_file():
        raise UserError(
            f"{key}=file/{folder} is a file, which does not say of which network it is: "
            f"{key}=timm/NAME backbone.weights={folder}"
        )
    if not file.is_file() or file.stat().st_size > _LARGEST:
        raise UserError(f"{key}=file/{folder}: no config.json of a network of timm is there (timm.models.save_for_hf)")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is not a description of a network ({error})") from error
    content = content if isinstance(content, dict) else {}
    architecture, described = content.get("architecture"), content.get("pretrained_cfg") or content
    options = content.get("model_args") or {}
    if not (isinstance(architecture, str) and re.fullmatch(r"\w+", architecture)) or not isinstance(options, dict):
        raise UserError(f"{file} does not name an architecture of timm")
    known = described if isinstance(described, dict) else {}
    options = {**{name: known[name] for name in ("mean", "std") if known.get(name)}, **options}
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    return f"timm/{architecture}", options, weights
