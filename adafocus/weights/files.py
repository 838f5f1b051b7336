"""Checkpoint files read as data. Nothing here ever executes code from a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adafocus.errors import UserError

State = dict[str, Tensor]


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
    """The tensors of a checkpoint by key: out of sections, or of `state_dict` or `model` if nested, without DataParallel's `module.`."""
    sections = {"glancer": "glancer.", "focuser": "focuser.", "fc": "classifier.", "policy": "policy."}
    if isinstance(content.get("glancer"), Mapping):  # AdaFocus V1: a section for each part, and all of it once more
        return {
            prefix + key: value
            for name, prefix in sections.items()
            if isinstance(content.get(name), Mapping)
            for key, value in content[name].items()
            if isinstance(value, Tensor)
        }
    nested = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {key: value for key, value in nested.items() if isinstance(value, Tensor)}
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
