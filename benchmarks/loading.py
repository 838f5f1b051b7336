"""Measures training clips per second and core: from H.264 files with each reader, and from JPEG folders, in comparison
with the released programs' loader.

python benchmarks/loading.py FOLDER_OF_MP4 [--frames 8 16 24 48] [--workers 1 2]

Frames are extracted once to a temporary folder at short side 256. "Pillow and float" is the loader of
the released programs: Pillow opens, crops and resizes each frame, and the loader converts the clip to float and
normalizes it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adafocus.core.rng import generator
from adafocus.data.annotations import Record
from adafocus.data.dataset import VideoClips, collate
from adafocus.data.extract import extract_frames
from adafocus.data.loader import Loader, TrainOrder
from adafocus.data.sampling import training_frames
from adafocus.data.transforms import multi_scale_box
from adafocus.data.video import installed_readers
from adafocus.data.view import View

SIZE, BATCH = 224, 8
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pillow_and_float(folder: Path, count: int, frames: int, epoch: int, index: int) -> torch.Tensor:
    """Loads a clip as the released programs do: Pillow images, crops, one array, and a float tensor of 3 T channels."""
    rng = generator(0, "augment", epoch, index, 0)
    images = [
        Image.open(folder / f"img_{number + 1:05d}.jpg").convert("RGB")
        for number in training_frames(count, frames, rng, short="first_frame")
    ]
    width, height = images[0].size
    box = multi_scale_box(height, width, SIZE, rng)
    area = (box.left, box.top, box.left + box.width, box.top + box.height)
    images = [image.crop(area).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
    if rng.random() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    wide = np.concatenate([np.array(image) for image in images], axis=2)
    clip = torch.from_numpy(wide).permute(2, 0, 1).contiguous().float().div(255)
    for channel, mean, std in zip(clip, MEAN * frames, STD * frames, strict=True):
        channel.sub_(mean).div_(std)
    return clip


def in_turns(ways: dict[str, Callable[[int, list[int]], object]], clips: int, epochs: int = 6) -> dict[str, float]:
    """Measures loaders alternately, one epoch each; returns milliseconds of CPU time per clip from files to a batch, as
    the median over batches."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(epochs):
        for name, get in ways.items():
            for first in range(0, clips - BATCH + 1, BATCH):
                started = time.process_time()
                get(epoch, list(range(first, first + BATCH)))
                if epoch:  # the first epoch is a warm-up
                    times[name].append(1000 * (time.process_time() - started) / BATCH)
    return {name: statistics.median(values) for name, values in times.items()}


def ours(clips: VideoClips) -> Callable[[int, list[int]], object]:
    return lambda epoch, batch: collate([clips[epoch, index] for index in batch])


def through_loader(clips: VideoClips, workers: int) -> float:
    """Clips per second of wall-clock time through the loader with its processes, without the first batches."""
    order = TrainOrder(len(clips), BATCH)
    loader = Loader(clips, order, workers=workers)
    for epoch in range(2):  # the first epoch starts the processes
        order.start_at(epoch, 0)
        started, seen = time.perf_counter(), 0
        for batch in loader:
            seen += len(batch)
        spent = time.perf_counter() - started
    return seen / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 24, 48])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--clips", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(options.folder.rglob("*.mp4"))
    files = files[:: max(1, len(files) // options.clips)][: options.clips]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        counts = [extract_frames(path, root / str(number)) for number, path in enumerate(files)]
        folders = [Record(str(number), (0,), count) for number, count in enumerate(counts)]
        videos = [Record(str(path), (0,)) for path in files]
        for frames in options.frames:
            view = View(segments=frames, size=SIZE, short_side=256, short="first_frame", decode_short_side=256)
            jpeg = VideoClips(
                folders,
                root,
                View(segments=frames, size=SIZE, short_side=256, short="first_frame"),
                seed=0,
                template="img_{:05d}.jpg",
            )
            ways: dict[str, Callable[[int, list[int]], object]] = {
                "JPEG, Pillow and float": lambda e, batch, f=frames: torch.stack(
                    [pillow_and_float(root / str(i), counts[i], f, e, i) for i in batch]
                ),
                "JPEG, ours": ours(jpeg),
            }
            sources = {"JPEG, ours": jpeg}
            for reader in ("auto", *(name for name in installed_readers())):
                sources[f"H.264, {reader}"] = VideoClips(videos, Path("/"), view, seed=0, reader=reader)
                ways[f"H.264, {reader}"] = ours(sources[f"H.264, {reader}"])
            spent = in_turns(ways, len(files))
            for name, value in spent.items():
                ratio = spent["JPEG, Pillow and float"] / value
                sys.stdout.write(
                    f"N={frames}, {name}: {1000 / value:.0f} clips/s and core ({value:.1f} ms), "
                    f"{ratio:.2f} x Pillow and float"
                )
                for workers in options.workers if name in sources else []:
                    sys.stdout.write(f"; {workers} workers {through_loader(sources[name], workers):.0f} clips/s")
                sys.stdout.write("\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
