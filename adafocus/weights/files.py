"""Checkpoint files read as data. Nothing here ever executes code from a file."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus.core.errors import UserError

State = dict[str, Tensor]
NOTES = "adafocus"  # the entry of a .safetensors header that holds configuration and class names


def save_safetensors(path: Path, state: State, notes: Mapping[str, object]) -> None:
    """Tensors under our names, and plain data about them (configuration, class names), without any code."""
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    save_file({key: value.contiguous() for key, value in state.items()}, part, {NOTES: json.dumps(dict(notes))})
    part.replace(path)


def load_file(path: Path) -> dict[str, object]:
    """The content of a .safetensors, .pt, .pth or .pth.tar file.

    Raises:
        UserError: missing, damaged, or a pickle that holds more than tensors and plain data (which could run code).
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file as load_safetensors

        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata() or {}
            state = dict(load_safetensors(path))
        except SafetensorError as error:
            raise UserError(f"checkpoint {path} is damaged ({error})") from error
        try:  # what `save_safetensors` wrote beside the tensors
            return {"model": state, **json.loads(notes[NOTES])} if NOTES in notes else state
        except ValueError as error:
            raise UserError(f"checkpoint {path} is damaged (its notes are no JSON)") from error
    try:
        with torch.serialization.safe_globals(_harmless()):
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
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def _harmless() -> list[Any]:
    """What old files hold beside tensors and plain data: NumPy numbers and arrays, and the options of their program.

    Making one of these runs no code of the file's choice; everything else is refused. NumPy 2 moved its names.
    """
    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    known: list[Any] = [np.ndarray, np.dtype, Namespace]
    for function in (core.scalar, core._reconstruct):
        known += [(function, f"numpy.{place}.multiarray.{function.__name__}") for place in ("core", "_core")]
    known += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    return known


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
