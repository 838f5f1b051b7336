"""Reads and writes checkpoint files; never executes code from a file."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
import zlib
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
    """Writes tensors, and plain data about them (configuration, class names), as a .safetensors file."""
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    save_file({key: value.contiguous() for key, value in state.items()}, part, {NOTES: json.dumps(dict(notes))})
    part.replace(path)


def load_file(path: Path) -> Mapping[str, Any]:
    """Reads a .safetensors, .pt, .pth or .pth.tar file.

    Raises:
        UserError: the file is missing, unreadable or damaged, or a pickle with more than tensors and plain data, which
            could run code.
    """
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist; name a file or a run folder")
    if not path.is_file():
        raise UserError(f"checkpoint {path} is a folder or a device, not a file; name a checkpoint file")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read ({error.strerror or error})") from error
    if not isinstance(content, Mapping):
        raise UserError(
            f"checkpoint {path} has a {type(content).__name__} instead of a dictionary of tensors; save a state dict"
        )
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file as load_safetensors

    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        state = dict(load_safetensors(path))
    except SafetensorError as error:
        raise UserError(f"checkpoint {path} is damaged ({error}); restore the file") from error
    try:  # the plain data of `save_safetensors`
        return {"model": state, **json.loads(notes[NOTES])} if NOTES in notes else state
    except (ValueError, TypeError) as error:
        raise UserError(
            f"checkpoint {path} is damaged (the entry {NOTES!r} of its header is not a JSON object)"
        ) from error


def _read_torch(path: Path) -> object:
    """Reads a file with torch.load after checking that it looks like one written by torch.save."""
    if (reason := _no_torch_file(path)) is not None:
        raise UserError(f"checkpoint {path} {reason}")
    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is refused: it is damaged or holds more than tensors and plain data, "
            f"which could run code when read"
        ) from error
    except OSError:
        raise
    except Exception as error:  # damaged files lead to exceptions of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path} is damaged ({reason[:200]}); restore the file") from error


def _no_torch_file(path: Path) -> str | None:
    """Returns why torch's safe loading would refuse a file, found without loading it; None if it would not."""
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            return "is empty"
        if start[257:262] == b"ustar":
            return (
                "is a tar archive; unpack it, or if it is torch's own format of 2017, save it again with "
                "a torch of today"
            )
        if start.startswith(b"PK"):
            try:
                with zipfile.ZipFile(file) as archive:
                    return _no_torch_archive(archive, path.stat().st_size)
            except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, KeyError, zlib.error):
                return "is damaged (a zip archive that breaks off)"
        return _no_pickle(start)


def _no_torch_archive(archive: zipfile.ZipFile, size: int) -> str | None:
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > 4 * size + 2**20:  # torch.save does not compress
        return f"is refused: {size / 2**20:.1f} MB that would unpack to {unpacked / 2**20:.0f} MB are no checkpoint"
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return "is a TorchScript program, not a checkpoint: save the state_dict() of its network with torch.save"
    pickled = next((name for name in names if name.rpartition("/")[2] == "data.pkl"), None)
    if pickled is None:
        return "is a zip archive without data.pkl, which torch.save would have written"
    with archive.open(pickled) as data:
        return _no_pickle(data.read(2))


def _no_pickle(start: bytes) -> str | None:
    if start[:1] != b"\x80":
        return "is no checkpoint: torch.save did not write it" + (" (it is text)" if start.isascii() else "")
    if start[1:2] != b"\x02":
        return (
            f"is a pickle of protocol {start[1] if len(start) > 1 else '?'}; only protocol 2, which "
            f"torch.save uses by itself, can be "
            f"read without running code: ask for a file saved without pickle_protocol"
        )
    return None


def _harmless() -> list[Any]:
    """Returns further types in old checkpoints that are safe to load: NumPy numbers and arrays, argparse options.

    Creating them runs no code from the file; all other types are refused. NumPy 2 renamed the modules of its types.
    """
    core: Any = getattr(np, "_core" if hasattr(np, "_core") else "core").multiarray
    known: list[Any] = [np.ndarray, np.dtype, Namespace]
    for function in (core.scalar, core._reconstruct):
        known += [(function, f"numpy.{place}.multiarray.{function.__name__}") for place in ("core", "_core")]
    known += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    return known


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values of tensors: equal for equal networks, whatever file they are in."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def tensors(content: Mapping[str, Any], source: str = "the checkpoint") -> State:
    """Returns the tensors of a checkpoint by key, without prefixes of DataParallel (`module.`) and torch.compile.

    They are taken from the sections of AdaFocus V1, from `state_dict` or `model`, or from the top level.

    Raises:
        UserError: tensors have numbers instead of names, or are quantized or sparse.
    """
    sections = {"glancer": "glancer.", "focuser": "focuser.", "fc": "classifier.", "policy": "policy."}
    if isinstance(content.get("glancer"), Mapping):  # AdaFocus V1: a section per part, and all of them once more
        parts = {prefix: content[name] for name, prefix in sections.items() if isinstance(content.get(name), Mapping)}
    else:
        parts = {
            "": next(
                (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content
            )
        }
    state: State = {}
    for prefix, part in parts.items():
        for key, value in part.items():
            if not isinstance(value, Tensor):
                continue
            if not isinstance(key, str):
                raise UserError(
                    f"{source} has tensors with numbers instead of names (first: {key!r}); save a state dict"
                )
            if value.layout != torch.strided or value.is_quantized:
                kind = "quantized" if value.is_quantized else "sparse"
                raise UserError(
                    f"{source} has {kind} tensors (first: {prefix}{key}); save it again with dense float tensors"
                )
            state[prefix + key] = value
    for wrapper in ("module.", "_orig_mod.", "module."):
        while state and all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state
