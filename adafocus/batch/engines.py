"""Engines that predict the videos of a job: worker processes on this machine, or Ray Data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adafocus.batch.predictor import VideoPredictor
from adafocus.core.errors import UserError
from adafocus.data.processes import in_processes

CHUNK = 8  # videos that a worker gets at a time; a killed one loses at most their work
ATTEMPTS = 3  # times that a video is tried alone before it counts as the reason why its process dies
LOADING = 300.0  # seconds for loading the network in a process

Row = dict[str, Any]
Chunk = list[tuple[str, str]]  # id and path of each video


class _Work:
    """Predicts a chunk in a worker process, with one thread: the processes share the cores."""

    def __init__(self, predictor: VideoPredictor) -> None:
        self.predictor = predictor

    def __call__(self, chunk: Chunk) -> list[Row]:
        import torch

        torch.set_num_threads(1)  # the threads of a process that was forked do not exist
        found = self.predictor.rows([path for _, path in chunk])
        return [{"id": name, **row} for (name, _), row in zip(chunk, found, strict=True)]


def predict_locally(predictor: VideoPredictor, videos: Mapping[str, str], workers: int) -> Iterator[Row]:
    """Rows of all videos from worker processes, in the order in which they are done.

    A process that dies is replaced. The videos it had are tried again one by one, and one during which processes die
    three times gets a row with that error, as does one that takes too long twice.

    Args:
        predictor: the predictor. On a CPU the processes share its network in memory.
        videos: path by id.
        workers: number of processes.

    Raises:
        UserError: the network cannot be loaded.
    """
    per_video = 2 * predictor.predictor.settings.dataset.video_timeout + 30.0
    size = max(1, min(max(CHUNK, predictor.predictor.batch_size), len(videos) // (4 * workers)))
    items = list(videos.items())
    chunks: list[Chunk] = [items[first : first + size] for first in range(0, len(items), size)]
    tried: Counter[str] = Counter()
    fork = predictor.predictor.device.type == "cpu"

    def limit(chunk: Chunk) -> float:
        return (0.0 if fork else LOADING) + per_video * len(chunk)

    for outcome in in_processes(_Work(predictor), chunks, workers, limit, fork=fork):
        chunk = chunks[outcome.number]
        if outcome.result is not None:
            yield from outcome.result
        elif len(chunk) > 1:
            chunks += [[video] for video in chunk]
        else:
            name, path = chunk[0]
            tried[name] += 1
            if outcome.died and tried[name] < ATTEMPTS:
                chunks.append(chunk)
            else:
                reason = outcome.reason.removeprefix(f"{chunk}: ")
                yield {"id": name, "path": path, "error": f"{path}: {reason}"}


def predict_on_ray(
    predictor: Callable[[], VideoPredictor], videos: Mapping[str, str], workers: int | None, *, gpu: bool
) -> Iterator[Row]:
    """Rows of all videos from Ray Data, whose workers get paths and send rows.

    Args:
        predictor: makes the predictor in a worker.
        videos: path by id.
        workers: number of actors; None: as many as the cluster has CPUs, or with `gpu` GPUs.
        gpu: whether an actor needs a GPU.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import pyarrow
        import ray
    except ImportError as error:
        raise UserError('--engine ray needs Ray: pip install "adafocus[ray]"') from error

    class Worker:
        def __init__(self) -> None:
            self.predictor = predictor()

        def __call__(self, batch: Any) -> Any:
            return self.predictor(batch)

    ray.init(ignore_reinit_error=True, log_to_driver=False)
    found = ray.cluster_resources()
    count = workers or max(1, int(found.get("GPU" if gpu else "CPU", 1)))
    rows = pyarrow.table({"id": list(videos), "path": list(videos.values())})
    data = ray.data.from_arrow(rows).repartition(max(1, min(len(videos) // CHUNK, 16 * count)))
    options: dict[str, Any] = {"batch_size": CHUNK, "batch_format": "pyarrow", "concurrency": count}
    if gpu:
        options["num_gpus"] = 1
    batches: Any = data.map_batches(Worker, **options).iter_batches(batch_size=None, batch_format="pyarrow")
    for batch in batches:
        yield from batch.to_pylist()
