"""The temporal adaptive module: each channel is filtered over time by a kernel made from the clip itself.

Source: TAM (arXiv 2005.06803); spec tam section 2.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from adafocus.layers.precision import full_precision, widen


def three_taps(x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """y[t] = before[t] x[t-1] + here[t] x[t] + after[t] x[t+1], zeros outside the clip.

    The released code permutes the map twice and runs a convolution of B * C groups; this is the same sum where the frames
    are, in one pass for each tap (2e-7 relative difference).

    Args:
        x: (B, T, C, H, W).
        before, here, after: (B, T, C).
    """
    return _ThreeTaps.apply(x, *(tap[..., None, None] for tap in (before, here, after)))


def _filter(x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    y = here * x
    y[:, 1:].addcmul_(before[:, 1:], x[:, :-1])
    y[:, :-1].addcmul_(after[:, :-1], x[:, 1:])
    return y


class _ThreeTaps(torch.autograd.Function):
    # Autograd's own backward of writes into slices copies the whole gradient for each of them.
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
        ctx.save_for_backward(x, before, here, after)
        return _filter(x, before, here, after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, before, here, after = ctx.saved_tensors
        # The transposed filter: x[t] goes to y[t+1] through before[t+1] and to y[t-1] through after[t-1].
        to_x = _filter(gradient, after.roll(1, 1), here, before.roll(-1, 1))
        to_here = (gradient * x).sum((-2, -1), keepdim=True)
        to_before, to_after = torch.zeros_like(to_here), torch.zeros_like(to_here)
        to_before[:, 1:] = (gradient[:, 1:] * x[:, :-1]).sum((-2, -1), keepdim=True)
        to_after[:, :-1] = (gradient[:, :-1] * x[:, 1:]).sum((-2, -1), keepdim=True)
        return to_x, to_before, to_here, to_after


class TemporalAdaptive(nn.Module):
    """TAM: branch L weights every channel and frame, branch G makes three taps a channel, the same for all frames.

    Both read the unweighted pooled features. Not the identity at the start: the taps are near 1/3, the weights near 1/2.
    G's matrices depend on T, so a trained module works for one number of frames only.

    Args:
        channels: C.
        segments: T.
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
        """Taps (B, C, 3) for frames t-1, t, t+1 and importance (B, C, T) of (B * T, C, H, W)."""
        with full_precision(x):  # softmax and sigmoid of a few pooled numbers: they cost nothing
            pooled = widen(x.mean((-2, -1))).unflatten(0, (-1, self.segments)).transpose(1, 2)
            taps = self.G(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
            return taps, self.L(pooled)

    @staticmethod
    def uncounted(x: Tensor) -> int:
        """Multiply-adds that no convolution or product shows: three taps for every value."""
        return 3 * x.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) to the same shape."""
        taps, importance = self.weights(x)
        padded = functional.pad(importance, (1, 1))
        coefficients = [
            (taps[:, :, tap : tap + 1] * padded[:, :, tap : tap + self.segments]).transpose(1, 2).to(x.dtype)
            for tap in range(3)
        ]
        return three_taps(x.unflatten(0, (-1, self.segments)), *coefficients).flatten(0, 1)


class Adapted(nn.Module):
    """A module that sees frames filtered by TAM."""

    def __init__(self, net: nn.Module, channels: int, segments: int) -> None:
        super().__init__()
        self.tam = TemporalAdaptive(channels, segments)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) to what `net` makes of it."""
        return self.net(self.tam(x))
