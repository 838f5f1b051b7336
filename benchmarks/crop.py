"""Compares the time of the differentiable crop with that of `affine_grid` and `grid_sample` (the released code).

python benchmarks/crop.py [--device cuda] [--size 224] [--patch 128]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.layers.crop import crop


def by_grid_sampler(frames: Tensor, where: Tensor, size: int) -> Tensor:
    """Crops by `affine_grid` and bilinear `grid_sample` over the whole frame, as the released code does."""
    side = frames.shape[-1]
    corner = where * (side - size)
    theta = frames.new_zeros(len(frames), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = size / side
    theta[:, 0, 2] = -1 + (2 * corner[:, 1] + size) / side
    theta[:, 1, 2] = -1 + (2 * corner[:, 0] + size) / side
    grid = functional.affine_grid(theta, [len(frames), 3, size, size], align_corners=False)
    return functional.grid_sample(frames, grid, align_corners=False)


def milliseconds(function, frames: Tensor, where: Tensor, size: int, backward: bool) -> float:
    started = time.perf_counter()
    patches = function(frames, where, size)
    if backward:
        patches.sum().backward()
    if frames.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    for count in (32, 128):
        frames = torch.rand(count, 3, options.size, options.size, device=options.device)
        for layout in (torch.contiguous_format, torch.channels_last):
            frames = frames.contiguous(memory_format=layout)
            where = torch.rand(count, 2, device=options.device, requires_grad=True)
            for backward in (False, True):
                times: dict[str, list[float]] = {"crop": [], "grid": []}
                # Both are measured alternately, so that other load on the machine affects both.
                for _ in range(options.repeats):
                    times["crop"].append(milliseconds(crop, frames, where, options.patch, backward))
                    times["grid"].append(milliseconds(by_grid_sampler, frames, where, options.patch, backward))
                ours, theirs = (statistics.median(times[name]) for name in ("crop", "grid"))
                sys.stdout.write(
                    f"{count} frames of {options.size}, patch {options.patch}, {layout}, "
                    f"{'forward and backward' if backward else 'forward'}: crop {ours:.1f} ms, "
                    f"grid sampler {theirs:.1f} ms, "
                    f"ratio {theirs / ours:.2f}\n"
                )


if __name__ == "__main__":
    main()
