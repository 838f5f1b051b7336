"""Measures how much of the multiply-adds that early exit saves is saved as time.

python benchmarks/early_exit.py [--method adafocus_v2|uni_adafocus|uni_adafocus_tsm] [--nets tiny|mbv2_r50]
                                [--device cuda] [--clips 32] [--batch 1 32] [--segments 8] [--chunk 1]

Networks have random weights and see random frames. Three sets of thresholds distribute the clips over the exits in
different ways. Each is compared with the full network on all frames, and both are measured alternately.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from adafocus import build
from adafocus.config.compose import compose
from adafocus.core.batch import Batch
from adafocus.evaluation import exits
from adafocus.evaluation.cost import count
from adafocus.layers.precision import channels_last
from adafocus.methods.network import passed_exits

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="adafocus_v2", choices=("adafocus_v2", "uni_adafocus", "uni_adafocus_tsm"))
    parser.add_argument("--nets", default="mbv2_r50", choices=("tiny", "mbv2_r50"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--segments", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=1, help="steps between two exits")
    options = parser.parse_args()
    settings = configuration(options)
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = channels_last(build.model(settings, 20, weights=False).to(device)).eval()
    stage = build.stage(settings, model)
    side, frames = settings.dataset.frame_size, build.frame_plan(settings).clip
    with torch.device("meta"):
        network = build.model(settings, 20, weights=False)
    cost = count(network, frames, side)
    costs, full_cost = model.exit_costs(cost), cost.total
    clips = torch.randint(0, 256, (options.clips, frames, side, side, 3), dtype=torch.uint8)
    numbers = passed_exits(model.num_exits, options.chunk, glance_exit=model.glance_exit)
    for size in options.batch:
        batches = [batch_of(clips[first : first + size], first, device) for first in range(0, options.clips, size)]
        sure = torch.cat([exits.certainty(stage.exit_logits(batch)[:, numbers].float()).cpu() for batch in batches])
        exits.run_in_full(stage, batches[0])  # warm-up
        for q in (0.3, 0.7, 1.0):
            limits = exits.thresholds(sure, exits.wanted_shares([q], len(numbers))[0])
            at = exits.exit_indices(sure, limits)
            mean = sum(costs[numbers[int(exit_)]] for exit_ in at) / len(at)
            if mean >= 0.99 * full_cost:
                continue
            whole, early = [], []
            for _ in range(ROUNDS):
                whole.append(sum(exits.run_in_full(stage, batch).networks for batch in batches))
                early.append(
                    sum(
                        exits.exit_early(stage, b, limits, numbers, "confidence", options.chunk).networks
                        for b in batches
                    )
                )
            full, left = statistics.median(whole), statistics.median(early)
            saved, time_saved = 1 - mean / full_cost, 1 - left / full
            sys.stdout.write(
                f"{options.method} {options.nets} batch {size} chunk {options.chunk}: "
                f"{100 * mean / full_cost:.0f} % of {full_cost / 1e9:.3g} G, "
                f"{1000 * left / options.clips:.1f} ms a clip against {1000 * full / options.clips:.1f}: "
                f"{100 * time_saved / saved:.0f} % of the saving is one of time\n"
            )
            sys.stdout.flush()


def configuration(options: argparse.Namespace):  # noqa: ANN201
    typed = ["dataset=glyphs", "dataset.glance_reduction=2"]
    if options.nets == "mbv2_r50":
        tsm = "_tsm" if options.method.endswith("tsm") else ""
        typed = [f"backbone=mbv2_r50{tsm}", "backbone.weights=none", "dataset.frame_size=224", "patch=128"]
        typed += ["patch.smallest=96"]
    elif options.method.endswith("tsm"):
        typed.append("backbone=tiny_tsm")
    method = options.method.removesuffix("_tsm")
    return compose([*typed, f"method={method}", f"segments.glance={options.segments}"])


def batch_of(clips: torch.Tensor, first: int, device: torch.device) -> Batch:
    """A batch whose frames are in memory, so that no time is spent on decoding."""
    size = len(clips)
    labels = torch.zeros(size, 1, dtype=torch.int64)
    index = torch.arange(first, first + size)
    return Batch(clips, labels, index, -1, torch.ones(size, dtype=torch.bool)).to(device)


if __name__ == "__main__":
    main()
