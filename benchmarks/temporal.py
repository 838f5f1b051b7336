"""Compares the time of the temporal shift and of TAM with that of their usual implementations, forward and backward.

python benchmarks/temporal.py [--device cuda] [--repeats 15]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.backbones.adaptive import TemporalAdaptive
from adafocus.backbones.shift import temporal_shift

T = 8


def plain_shift(x: Tensor, segments: int, fold: int) -> Tensor:
    """The temporal shift as a zero-filled copy and three slice copies, as in TSM's repository."""
    clips = x.view(-1, segments, *x.shape[1:])
    out = torch.zeros_like(clips)
    out[:, :-1, :fold] = clips[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.view_as(x)


def plain_adaptive(module: TemporalAdaptive, x: Tensor) -> Tensor:
    """TAM with permuted copies and a convolution with one group per video and channel, as in its repository."""
    taps, importance = module.weights(x)
    videos, channels, segments = importance.shape
    height, width = x.shape[-2:]
    permuted = x.view(videos, segments, channels, height, width).permute(0, 2, 1, 3, 4).contiguous()
    rows = (permuted * importance[..., None, None]).view(1, videos * channels, segments, height * width)
    y = functional.conv2d(rows, taps.view(-1, 1, 3, 1), padding=(1, 0), groups=videos * channels)
    return y.view(videos, channels, segments, height, width).permute(0, 2, 1, 3, 4).contiguous().view_as(x)


def seconds(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(name: str, ours: Callable, plain: Callable, x: Tensor, repeats: int) -> None:
    def forward(function: Callable) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return function(x.detach())

        return run

    def both(function: Callable) -> Callable[[], object]:
        return lambda: function(x).sum().backward()

    for what, make in (("forward", forward), ("forward and gradient", both)):
        a, b = make(ours), make(plain)
        for _ in range(2):
            a(), b()
        pairs = [(seconds(a, x.device), seconds(b, x.device)) for _ in range(repeats)]
        ratio = statistics.median(p / o for o, p in pairs)
        mine = 1000 * statistics.median(o for o, _ in pairs)
        sys.stdout.write(f"{name}, {what}: {mine:.2f} ms, {ratio:.2f} times as fast as the plain form\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--clips", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    for channels, side in ((256, 56), (1024, 14)):
        x = torch.randn(options.clips * T, channels, side, side, device=options.device, requires_grad=True)
        fold = channels // 8
        shape = tuple(x.shape)
        compare(
            f"shift {shape}",
            lambda v, f=fold: temporal_shift(v, T, f),
            lambda v, f=fold: plain_shift(v, T, f),
            x,
            options.repeats,
        )
    for channels, side in ((64, 56), (256, 14)):
        x = torch.randn(options.clips * T, channels, side, side, device=options.device, requires_grad=True)
        module = TemporalAdaptive(channels, T).to(options.device)
        compare(f"TAM {tuple(x.shape)}", module, lambda v, m=module: plain_adaptive(m, v), x, options.repeats)


if __name__ == "__main__":
    main()
