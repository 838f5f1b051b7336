"""Runs a backbone by another program than torch: ONNX Runtime or OpenVINO, on the CPU.

The backbone is exported to ONNX once, with any number of clips per batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adafocus.core.errors import UserError

#: Program -> the modules that it imports; `pip install "adafocus[PROGRAM]"` brings them.
NEEDS = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}


def check(name: str, precision: str, device: torch.device) -> None:
    """
    Raises:
        UserError: the program is not installed, or cannot run with this precision or on this device.
    """
    if name not in NEEDS:
        return
    missing = [module for module in NEEDS[name] if find_spec(module) is None]
    if missing:
        raise UserError(f'program={name} needs {", ".join(missing)}: pip install "adafocus[{name}]"')
    if device.type != "cpu":
        raise UserError(f"program={name} runs on the CPU; on {device.type} choose program=eager or program=compile")
    if precision == "fp16" or (precision == "bf16" and name == "onnxruntime"):
        raise UserError(f"program={name} does not run in precision={precision}; choose precision=fp32, or another one")


def run_by(name: str, backbone: nn.Module, images: Tensor, precision: str) -> None:
    """Replaces the forward pass of a backbone in place.

    Args:
        name: "onnxruntime" or "openvino".
        backbone: the backbone, on the CPU.
        images: (N, C, H, W) an example of its input, of one clip.
        precision: "fp32", or "bf16" with OpenVINO.
    """
    clips = _Clips(backbone)
    shape = images.shape[1:]
    example = images.new_zeros(2, clips.frames, *shape)  # torch.export would take a batch of one for a constant
    # Both load the whole file; nothing reads it later.
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "backbone.onnx"
        batch = torch.export.Dim("batch", min=1, max=65536)
        torch.onnx.export(
            clips.eval(),
            (example,),
            path,
            input_names=["clips"],
            output_names=["maps"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
            external_data=False,
        )
        run = _onnxruntime(path) if name == "onnxruntime" else _openvino(path, precision)

    def forward(images: Tensor) -> Tensor:
        if images.shape[1:] != shape:
            raise ValueError(f"this {name} program was made for images {tuple(shape)}, not {tuple(images.shape[1:])}")
        found = run(images.float().contiguous().unflatten(0, (-1, clips.frames)).numpy())
        return torch.from_numpy(found)

    backbone.forward = forward


class _Clips(nn.Module):
    """A backbone that takes clips (B, frames, C, H, W); one frame a clip unless it has temporal modules."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        counts = [getattr(module, "segments", 1) for module in backbone.modules()]
        self.frames = max(count for count in counts if isinstance(count, int))

    def forward(self, clips: Tensor) -> Tensor:
        return self.backbone(clips.flatten(0, 1))


def _onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run(None, {"clips": clips})[0]


def _openvino(path: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    core: Any = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    program = core.compile_model(core.read_model(path), "CPU", options)
    return lambda clips: program(clips)[0]
