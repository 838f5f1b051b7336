"""The temporal adaptive module (TAM): filters each channel over time with a kernel computed from the clip.

Source: TAM (arXiv 2005.06803); liu-zhy/temporal-adaptive-module, class `TAM` in ops/temporal_module.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen


def three_taps(x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Computes y[t] = before[t] x[t-1] + here[t] x[t] + after[t] x[t+1], with zeros outside the clip.

    The repository permutes the map twice and runs a convolution with B * C groups; this computes the same sum without
    permuting, in one pass for each tap (2e-7 relative difference).

    Args:
        x: (B, T, C, H, W) feature maps.
        before, here, after: (B, T, C) filter taps for frames t - 1, t and t + 1.
    """
    return _ThreeTaps.apply(x, *(tap[..., None, None] for tap in (before, here, after)))


def _filter(x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    y = here * x
    y[:, 1:].addcmul_(before[:, 1:], x[:, :-1])
    y[:, :-1].addcmul_(after[:, :-1], x[:, 1:])
    return y


class _ThreeTaps(torch.autograd.Function):
    # A custom backward, because autograd copies the whole gradient for every assignment to a slice.
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
        ctx.save_for_backward(x, before, here, after)
        return _filter(x, before, here, after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, before, here, after = ctx.saved_tensors
        # The transposed filter: x[t] contributes to y[t+1] with before[t+1] and to y[t-1] with after[t-1].
        to_x = _filter(gradient, after.roll(1, 1), here, before.roll(-1, 1))
        to_here = (gradient * x).sum((-2, -1), keepdim=True)
        to_before, to_after = torch.zeros_like(to_here), torch.zeros_like(to_here)
        to_before[:, 1:] = (gradient[:, 1:] * x[:, :-1]).sum((-2, -1), keepdim=True)
        to_after[:, :-1] = (gradient[:, :-1] * x[:, 1:]).sum((-2, -1), keepdim=True)
        return to_x, to_before, to_here, to_after


class TemporalAdaptive(nn.Module):
    """TAM: branch L weights every channel of every frame; branch G computes three filter taps per channel of a clip.
    Both branches read the spatially pooled input. The module is not the identity at initialization: the taps are near
    1/3 and the weights near 1/2. G's matrices depend on T, so a trained module works for one number of frames only.

    Args:
        channels: number of channels C.
        segments: number of frames T of a clip.
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        self.segments = segments
        hidden, inner = 2 * segments, max(channels // 4, 1)
        self.G = nn.Sequential(
            nn.Linear(segments, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 3, bias=False),
            nn.Softmax(-1),
        )
        self.L = nn.Sequential(
            nn.Conv1d(channels, inner, 3, padding=1, bias=False),
            nn.BatchNorm1d(inner),
            nn.ReLU(inplace=True),
            nn.Conv1d(inner, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes taps (B, C, 3) for frames t - 1, t, t + 1 and weights (B, C, T) from maps (B * T, C, H, W)."""
        with full_precision(x):  # costs almost nothing, because the pooled features are small
            pooled = widen(x.mean((-2, -1))).unflatten(0, (-1, self.segments)).transpose(1, 2)
            taps = self.G(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
            return taps, self.L(pooled)

    @staticmethod
    def uncounted(x: Tensor) -> int:
        """Multiply-adds that torch's counter misses because they are elementwise: three taps for every value."""
        return 3 * x.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Filters feature maps (B * T, C, H, W) over time."""
        taps, importance = self.weights(x)
        padded = functional.pad(importance, (1, 1))
        coefficients = [
            (taps[:, :, tap : tap + 1] * padded[:, :, tap : tap + self.segments]).transpose(1, 2).to(x.dtype)
            for tap in range(3)
        ]
        return three_taps(x.unflatten(0, (-1, self.segments)), *coefficients).flatten(0, 1)


class Adapted(nn.Module):
    """Applies TAM to the input of another module."""

    def __init__(self, net: nn.Module, channels: int, segments: int) -> None:
        super().__init__()
        self.tam = TemporalAdaptive(channels, segments)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Applies TAM and then `net` to feature maps (B * T, C, H, W)."""
        return self.net(self.tam(x))
