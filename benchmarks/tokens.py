"""How much of the saving in multiply-adds is a saving of time, when fewer tokens are computed (method=tokens).

The whole network runs on frames in memory: glance, policy, choice, gathering of pixels, transformer. All shares of
tokens are measured alternately. `kept` is (1 - time / time of all tokens) / (1 - multiply-adds / those of all tokens).

python benchmarks/tokens.py [--device cuda] [--clips 2] [--frames 8] [--side 224] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from copy import deepcopy

import torch

from adafocus.backbones import BACKBONES
from adafocus.backbones.vit import ViT
from adafocus.evaluation.cost import count
from adafocus.methods.tokens.model import TokenFocus

KEEP = (0.05, 0.1, 0.2, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = TokenFocus(
        BACKBONES["mobilenet_v2"](),
        ViT(options.side, patch_size=16, width=192, depth=12, num_heads=3, mlp_ratio=4),  # the shape of ViT-Ti
        num_classes=100,
        glance_segments=options.frames,
        candidates=options.frames,
        frame_size=options.side,
        glance_size=options.side // 2,
    ).eval()
    costs = {}
    for keep in KEEP:
        model.keep = keep
        costs[keep] = count(deepcopy(model).to("meta"), options.frames, options.side).total
    model.to(options.device)
    frames = torch.randn(options.clips, options.frames, 3, options.side, options.side, device=options.device)

    def seconds(keep: float) -> float:
        model.keep = keep
        if options.device == "cpu":  # time of this process, which other programs of the machine disturb less
            started = time.process_time()
            model(frames, auxiliary=False)
            return time.process_time() - started
        torch.cuda.synchronize()
        started = time.perf_counter()
        model(frames, auxiliary=False)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    times: dict[float, list[float]] = {keep: [] for keep in KEEP}
    with torch.inference_mode():
        for number in range(options.repeats + 1):
            for keep in KEEP:
                taken = seconds(keep)
                if number:  # the first round warms up
                    times[keep].append(taken)
    middle = {keep: statistics.median(taken) / options.clips for keep, taken in times.items()}
    for keep in KEEP:
        line = f"keep {keep:4.2f}: {costs[keep] / 1e9:6.2f} G multiply-adds, {1000 * middle[keep]:7.1f} ms a clip"
        if keep < 1:
            # Ratios within a round, so that a busy machine slows both sides down.
            ratio = statistics.median(a / b for a, b in zip(times[keep], times[1.0], strict=True))
            line += f", {ratio:.3f} of the time, kept {100 * (1 - ratio) / (1 - costs[keep] / costs[1.0]):.0f} %"
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
