"""Compares training clips behind a web server of this machine, as files and as shards, with those of the local folder.

python benchmarks/remote.py FOLDER_OF_CLASSES WORK [--latency 0.05] [--workers 4] [--batch 16] [--turns 3]

FOLDER_OF_CLASSES is what dataset=folder reads. Each way reads every training clip of an epoch; the ways take turns, and
nothing is cached before. A second epoch, from the cache, is measured as well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.http_server import serve  # noqa: E402

from adafocus import build, compose  # noqa: E402
from adafocus.data.loader import Loader, TrainOrder  # noqa: E402


def seconds(root: str, workers: int, batch: int) -> tuple[float, float]:
    """Seconds a clip of the first and the second epoch."""
    typed = ("dataset=folder", f"dataset.root={root}", "dataset.cache_megabytes=0", "method=adafocus_v2")
    data = build.data(compose(*typed))
    order = TrainOrder(len(data.train), batch)
    loader = Loader(data.train, order, workers=workers)
    found = []
    for epoch in range(2):
        order.start_at(epoch, 0)
        batches = iter(loader)
        next(batches)  # the processes have started
        began, clips = time.perf_counter(), 0
        for item in batches:
            clips += len(item)
        found.append((time.perf_counter() - began) / clips)
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path, help="folder for shards and cache, which must not exist")
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    shards, site_root = options.work / "shards", options.folder.resolve()
    command = [sys.executable, "-m", "adafocus.cli", "prepare", "shard", str(site_root), str(shards.resolve())]
    subprocess.run(command, cwd=ROOT, check=False)  # its status says whether a video is broken
    os.environ["XDG_CACHE_HOME"] = str(options.work.resolve() / "cache")
    ratios: dict[str, list[tuple[float, float]]] = {}
    with serve(site_root) as files, serve(shards.resolve()) as packed:
        files.latency = packed.latency = options.latency
        ways = {"http files": files.address, "local shards": str(shards.resolve()), "http shards": packed.address}
        for _ in range(options.turns):
            for name, root in ways.items():
                shutil.rmtree(options.work / "cache", ignore_errors=True)
                local = seconds(str(site_root), options.workers, options.batch)
                other = seconds(root, options.workers, options.batch)
                ratios.setdefault(name, []).append((local[0] / other[0], local[1] / other[1]))
                sys.stdout.write(
                    f"{name}: {1 / other[0]:.1f} clips a second, then {1 / other[1]:.1f}; local folder "
                    f"{1 / local[0]:.1f}, then {1 / local[1]:.1f}\n"
                )
    for name, found in ratios.items():
        first, second = (statistics.median(values) for values in zip(*found, strict=True))
        sys.stdout.write(f"{name}: {first:.2f} of the local folder's speed, in the second epoch {second:.2f}\n")


if __name__ == "__main__":
    main()
