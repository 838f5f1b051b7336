"""Float32 sections within autocast (for coordinates, recurrent states, logits); the channels-last memory format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Returns a context in which computation on the device of `tensor` has the full precision of float32.

    Autocast is off, and on a GPU also TensorFloat-32, which keeps 10 bits of the inputs. Compiled code cannot change
    the latter setting; there the whole process has to leave TensorFloat-32 off. It does nothing on the meta device.
    """
    device = tensor.device.type
    if device == "meta":
        return nullcontext()
    autocast = torch.is_autocast_enabled(device)
    if device == "cuda" and not torch.compiler.is_compiling() and _tf32():
        return _full_precision_on_gpu(autocast)
    return torch.autocast(device, enabled=False) if autocast else nullcontext()


def _tf32() -> bool:
    return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32


@contextmanager
def _full_precision_on_gpu(autocast: bool) -> Iterator[None]:
    """Switches TensorFloat-32 off, and autocast if `autocast` says that it is on, as a context."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False) if autocast else nullcontext():
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


def channels_last(model: nn.Module) -> nn.Module:
    """Converts the weights of 2-d convolutions to the channels-last memory format, in place; returns the model."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def widen(tensor: Tensor) -> Tensor:
    """Converts float16 and bfloat16 tensors to float32; others are returned unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
