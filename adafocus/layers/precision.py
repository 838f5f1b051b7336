"""Float32 sections within autocast (for coordinates, recurrent states, logits); the channels-last memory format."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """A context with autocast disabled on the device of `tensor`; it does nothing on the meta device."""
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def channels_last(model: nn.Module) -> nn.Module:
    """Converts the weights of 2-d convolutions to the channels-last memory format, in place; returns the model."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def widen(tensor: Tensor) -> Tensor:
    """Converts float16 and bfloat16 tensors to float32; others are returned unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
