"""Measures how much of the multiply-adds that early exit saves is saved as time.

python benchmarks/early_exit.py [--method adafocus_v2|adafocus_v2_tsm|uni_adafocus|uni_adafocus_tsm|tokens|...]
                                [--nets tiny|mbv2_r50] [--device cuda] [--clips 64] [--batch 1 32] [--segments 8]
                                [--chunk 1] [--fold]

Networks have random weights and see random frames. Three sets of thresholds distribute the clips over the exits in
different ways. Each is compared with the full network on all frames, in turns, and the exits and labels with those of
the simulation. The last columns compare early exit with queues of survivors, which the package uses, with early exit
of every batch alone. On a CPU the seconds are those of the process, since other programs may use the cores as well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial

import torch

from adafocus import build, config, inference
from adafocus.config.compose import compose
from adafocus.core.batch import Batch
from adafocus.evaluation import exits, queues
from adafocus.evaluation.cost import count
from adafocus.inference import Program
from adafocus.layers.precision import channels_last
from adafocus.methods.network import passed_exits
from adafocus.processes.memory import keep_freed_memory

METHODS = (
    "adafocus_v1",
    "adafocus_v1_tsm",
    "adafocus_v2",
    "adafocus_v2_tsm",
    "uni_adafocus",
    "uni_adafocus_tsm",
    "tokens",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="adafocus_v2", choices=METHODS)
    parser.add_argument("--nets", default="mbv2_r50", choices=("tiny", "mbv2_r50"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--segments", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=1, help="steps between two exits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.7, 1.0])
    parser.add_argument("--fold", action="store_true", help="fold BatchNorm into convolutions")
    options = parser.parse_args()
    settings = configuration(options)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    torch.manual_seed(0)
    model = build.model(settings, 20, weights=False).to(device).eval()
    side, frames = settings.dataset.frame_size, build.frame_plan(settings).clip
    inference.apply(model, Program(fold_norm=options.fold), torch.randn(1, frames, 3, side, side, device=device))
    stage = build.stage(settings, channels_last(model))
    with torch.device("meta"):
        network = build.model(settings, 20, weights=False)
    cost = count(network, frames, side)
    costs, full_cost = model.exit_costs(cost), cost.total
    clips = torch.randint(0, 256, (options.clips, frames, side, side, 3), dtype=torch.uint8)
    numbers = passed_exits(model.num_exits, options.chunk, glance_exit=model.glance_exit)
    for size in options.batch:
        batches = [batch_of(clips[first : first + size], first, device) for first in range(0, options.clips, size)]
        simulated = torch.cat([stage.exit_logits(batch)[:, numbers].float().cpu() for batch in batches])
        sure = exits.certainty(simulated)
        queues.run_in_full(stage, batches[:1])  # warm-up
        for q in options.budgets:
            limits = exits.thresholds(sure, exits.wanted_shares([q], len(numbers))[0])
            at = exits.exit_indices(sure, limits)
            mean = sum(costs[numbers[int(exit_)]] for exit_ in at) / len(at)
            if mean >= 0.99 * full_cost:
                continue
            limits -= 1e-5 * limits.abs().clamp(max=1e3)  # the clips that determine a threshold lie exactly on it
            ways = {
                "whole": lambda batches=batches: queues.run_in_full(stage, batches),
                "queues": partial(
                    queues.exit_early, stage, batches, limits, numbers, "confidence", options.chunk, size
                ),
                "masks": lambda batches=batches, limits=limits, size=size: [
                    queues.exit_early(stage, [one], limits, numbers, "confidence", options.chunk, size)
                    for one in batches
                ],
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, run in ways.items():
                    started = now(device)
                    found = run()
                    seconds[name].append(now(device) - started)
                    if name == "queues":
                        left = found
            same = left.exits == torch.tensor(numbers)[at]
            labels = left.logits.argmax(1) == simulated[torch.arange(len(at)), at].argmax(1)
            time_of = {name: statistics.median(found) for name, found in seconds.items()}
            saved = 1 - mean / full_cost
            kept = {name: 100 * (1 - time_of[name] / time_of["whole"]) / saved for name in ("queues", "masks")}
            sys.stdout.write(
                f"{options.method} {options.nets} batch {size} chunk {options.chunk}: "
                f"{100 * mean / full_cost:.0f} % of {full_cost / 1e9:.3g} G, "
                f"{1000 * time_of['queues'] / options.clips:.1f} ms a clip against "
                f"{1000 * time_of['whole'] / options.clips:.1f}: {kept['queues']:.0f} % of the saving is one of time "
                f"({kept['masks']:.0f} % batch by batch); as simulated: {int((same & labels).sum())} of {len(at)}\n"
            )
            sys.stdout.flush()


def now(device: torch.device) -> float:
    """Seconds of this process; on a GPU those that have passed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def configuration(options: argparse.Namespace):  # noqa: ANN201
    tsm, method = options.method.endswith("tsm"), options.method.removesuffix("_tsm")
    typed = ["dataset=glyphs", f"method={method}", f"segments.glance={options.segments}"]
    if method == "adafocus_v1":
        typed += ["stage=3", "init.from=none"]
    if method == "tokens" and options.nets == "mbv2_r50":
        typed += ["backbone=mnv4_tinyvit", "dataset.frame_size=224", "backbone.weights=none"]
    elif options.nets == "mbv2_r50":
        typed += [f"backbone=mbv2_r50{'_tsm' if tsm else ''}", "backbone.weights=none", "dataset.frame_size=224"]
        typed += ["patch=128", *(["patch.smallest=96"] if method == "uni_adafocus" else [])]
    elif tsm:
        typed.append("backbone=tiny_tsm")
    settings = compose(typed)
    return config.for_stage(settings, settings.stage.name)


def batch_of(clips: torch.Tensor, first: int, device: torch.device) -> Batch:
    """A batch whose frames are in memory, so that no time is spent on decoding."""
    size = len(clips)
    labels = torch.zeros(size, 1, dtype=torch.int64)
    index = torch.arange(first, first + size)
    return Batch(clips, labels, index, -1, torch.ones(size, dtype=torch.bool)).to(device)


if __name__ == "__main__":
    main()
