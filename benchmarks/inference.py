"""Programs for the backbones against the network as it was trained, in turns in one process.

python benchmarks/inference.py [--rounds 5] [--batch 1 4] [--networks uni v2 tsm] [--compile]

Seconds of evaluation of a batch in memory, one thread, random weights, 224 pixels; freed memory is kept in all of them
(see `memory.py`). bf16 is measured where the device has matrix units for it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from adafocus import build, inference
from adafocus.config.compose import compose
from adafocus.core.batch import Batch
from adafocus.inference import Program
from adafocus.processes.memory import keep_freed_memory

NETWORKS = {
    "uni": ("method=uni_adafocus", "backbone=mbv2_r50_tsm", "segments=8+8", "patch=96", "patch.smallest=96"),
    "v2": ("method=adafocus_v2", "backbone=mbv2_r50", "segments=16", "patch=128"),
    "tsm": ("method=recognizer", "backbone=r50_tsm", "segments=8"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    programs = [Program(), Program(fold_norm=True)]
    if inference.pick_precision("auto", torch.device("cpu")) == "bf16":
        programs += [Program("bf16"), Program("bf16", fold_norm=True)]
    programs += [Program(fold_norm=True, engine="compile")] if options.compile else []
    for name in options.networks:
        typed = ("dataset=glyphs", "backbone.weights=none", "dataset.frame_size=224")
        settings = compose([*typed, *NETWORKS[name]])
        frames = build.frame_plan(settings).clip
        stages = []
        for program in programs:
            network = build.seeded_model(settings, 10, weights=False).eval()
            inference.apply(network, program, torch.randn(1, frames, 3, 224, 224))
            stages.append(build.stage(settings, network))
        for size in options.batch:
            clips = torch.randint(0, 256, (size, frames, 224, 224, 3), dtype=torch.uint8)
            labels, rows = torch.zeros(size, 1, dtype=torch.int64), torch.arange(size)
            batch = Batch(clips, labels, rows, -1, torch.ones(size, dtype=torch.bool))
            seconds: list[list[float]] = [[] for _ in stages]
            for number in range(options.rounds + 1):  # the first round warms up
                for stage, found in zip(stages, seconds, strict=True):
                    started = time.process_time()
                    stage.evaluate(batch, stage.variants[:1])
                    found += [time.process_time() - started] if number else []
            for program, found in zip(programs, seconds, strict=True):
                ratio = statistics.median(plain / other for plain, other in zip(seconds[0], found, strict=True))
                milliseconds = 1000 * statistics.median(found)
                sys.stdout.write(
                    f"{name}, batch {size}, {str(program) or 'as trained'}: {milliseconds:.0f} ms, ratio {ratio:.2f}\n"
                )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
