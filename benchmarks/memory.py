"""Keeping freed memory against returning it to the system after every operation, in turns in one process.

python benchmarks/memory.py [--rounds 5] [--batch 1 4] [--patch 96]

CPU seconds of evaluation and of a training step of Uni-AdaFocus on TSM (8 and 8 frames of 224), random weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from adafocus import build
from adafocus.config.compose import compose
from adafocus.core.batch import Batch
from adafocus.processes.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--patch", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(1)
    typed = ("dataset=glyphs", "method=uni_adafocus", "backbone=mbv2_r50_tsm", "backbone.weights=none")
    sizes = (f"patch.size={options.patch}", "patch.smallest=96", "dataset.frame_size=224", "segments=8+8")
    settings = compose([*typed, *sizes])
    stage = build.stage(settings, build.seeded_model(settings, 10, weights=False))
    for size in options.batch:
        shape = (size, build.frame_plan(settings).clip, 224, 224, 3)
        clips, labels = torch.randint(0, 256, shape, dtype=torch.uint8), torch.zeros(size, 1, dtype=torch.int64)
        batch = Batch(clips, labels, torch.arange(size), 0, torch.ones(size, dtype=torch.bool))

        def step(batch: Batch = batch) -> None:
            stage.train()
            stage.step(batch).loss.backward()

        ways: list[tuple[str, Callable[[], object]]] = [
            ("evaluation", lambda batch=batch: stage.evaluate(batch, stage.variants[:1]))
        ]
        if size > 1:  # BatchNorm of a policy needs two clips
            ways.append(("training step", step))
        for name, work in ways:
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(options.rounds):
                for keep, found in seconds.items():
                    if not keep_freed_memory(keep):
                        raise SystemExit("this needs glibc, and no MALLOC_ variable in the environment")
                    work()
                    started = time.process_time()
                    work()
                    found.append(time.process_time() - started)
            ratios = [back / kept for kept, back in zip(seconds[True], seconds[False], strict=True)]
            sys.stdout.write(
                f"{name}, batch {size}: {1000 * statistics.median(seconds[False]):.0f} ms, kept "
                f"{1000 * statistics.median(seconds[True]):.0f} ms, ratio {statistics.median(ratios):.2f} "
                f"[{min(ratios):.2f}..{max(ratios):.2f}]\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
