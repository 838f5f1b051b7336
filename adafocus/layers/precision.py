"""Numbers in memory: islands of full precision inside autocast (coordinates, recurrent states, logits), and layouts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Switches autocast off on the device of `tensor` (the meta device has none to switch)."""
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def channels_last(model: nn.Module) -> nn.Module:
    """Lays the weights of 2-d convolutions out as frames are, pixel by pixel; those of 3-d ones stay. In place."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def widen(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
