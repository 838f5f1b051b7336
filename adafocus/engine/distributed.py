"""The processes of one run: the only place that knows torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adafocus.core.errors import UserError
from adafocus.engine.distributed_env import STORE


@dataclass(frozen=True)
class World:
    """This process among all processes of the run. Every method is a no-op copy in a run of one process."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with averaged gradients. BatchNorm statistics stay per process; those of rank 0 are kept."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order of rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def pick_device(name: str, local_rank: int, devices: int) -> torch.device:
    """The device of this process; `auto` is CUDA where there is one."""
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name == "cuda" and count == 0:
        raise UserError("device=cuda: no CUDA device is visible here; use device=cpu (or device=auto)")
    if name == "cuda" and devices > count:
        raise UserError(f"devices={devices}: only {count} CUDA devices are visible; lower devices or use device=cpu")
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device("cpu")


@contextmanager
def join(device_name: str, timeout: float) -> Iterator[World]:
    """Joins the processes that the environment names (RANK, WORLD_SIZE, LOCAL_RANK: ours or torchrun's)."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    device = pick_device(device_name, int(os.environ.get("LOCAL_RANK", rank)), local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    store = os.environ.get(STORE)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{store}" if store else "env://",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
    )
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
