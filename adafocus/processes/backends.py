"""Sets torch's CUDA backends; no other module changes TensorFloat-32 or cuDNN's choice of algorithms."""

from __future__ import annotations

import torch


def set_backends(device: torch.device, *, tf32: bool, benchmark: bool) -> None:
    """Sets the backends of a process; does nothing on a CPU, which has neither setting.

    Args:
        device: the device of this process.
        tf32: whether float32 convolutions and matrix products may round their inputs to TensorFloat-32 (10 bits).
            Policies, heads and crops never do, see `layers.precision.full_precision`.
        benchmark: whether cuDNN measures which algorithm is fastest for every new shape. It helps if shapes stay the
            same, as in training, but not in early exit, where the number of clips changes at every exit.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = benchmark


def backend_settings(device: torch.device) -> dict[str, bool] | None:
    """Returns the current settings, for the summary of a run; None on a CPU."""
    if device.type != "cuda":
        return None
    return {"tf32": torch.backends.cudnn.allow_tf32, "cudnn_benchmark": torch.backends.cudnn.benchmark}
