"""The processes of one run; the only module that uses torch.distributed."""

from __future__ import annotations

import inspect
import os
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adafocus.core.errors import UserError
from adafocus.core.files import write_bytes
from adafocus.processes.environment import STORE
from adafocus.processes.signals import Interrupted

_DDP_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
SHARED_WAIT = 5.0  # seconds within which a new file must be visible on all nodes of a network file system


class Told(UserError):
    """Raised if another process of this run failed, which reports the error itself."""


@dataclass(frozen=True)
class World:
    """Communication between the processes of a run; with one process, the methods return their argument."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wraps the model in DistributedDataParallel. BatchNorm buffers stay separate, see `share_buffers`."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        # torch warns about strides, but gradients of 1x1 convolutions have the same order in memory as the weights.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        keep = (
            "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers"
        )  # its older name
        options: dict[str, Any] = {keep: False}
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **options)

    def synchronize_norms(self, model: nn.Module) -> nn.Module:
        """Converts BatchNorm layers to SyncBatchNorm, whose statistics cover all processes; parameter names stay.

        Raises:
            UserError: the devices are not GPUs; torch has SyncBatchNorm for GPUs only.
        """
        if self.device.type != "cuda":
            raise UserError("sync_batchnorm=true works on CUDA devices only; leave it out")
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def share_buffers(self, model: nn.Module) -> None:
        """Copies the buffers of rank 0, which checkpoints store, to every process.

        Training steps do not read BatchNorm's running statistics, so copying them before an evaluation is enough. Those
        of rank 0 come from its own share of the clips; likewise `nn.DataParallel`, which the repositories use, keeps
        those of the first GPU.
        """
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def mean(self, values: Tensor) -> Tensor:
        """Returns the elementwise mean over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def largest(self, number: int) -> int:
        """Returns the maximum over all processes, exchanged between the CPUs, so that no GPU has to wait."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in order of rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def lost_contact(error: BaseException) -> bool:
    """Returns whether an exception means that the connection to another process of the run was lost."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def default_workers(device: torch.device) -> int:
    """Returns the number of loader processes of a device: 2 on a CPU, where training needs the cores as well.

    On a GPU it is the device's share of the cores that this process may use, less one, and at most 16.
    """
    if device.type != "cuda":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(16, cores // beside - 1))


def pick_device(name: str, local_rank: int, devices: int, *, own: bool = True) -> torch.device:
    """Chooses the device of this process.

    Args:
        name: cpu, cuda, or auto for CUDA if available.
        local_rank: index of this process on its machine.
        devices: number of processes on the machine.
        own: whether this package started the processes; other launchers (srun) may show each process one GPU only.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name == "cuda" and count == 0:
        raise UserError("device=cuda: no CUDA device is visible here; use device=cpu (or device=auto)")
    if name == "cuda" and count == 1 and not own:
        return torch.device("cuda", 0)
    if name == "cuda" and devices > count:
        raise UserError(f"devices={devices}: only {count} CUDA devices are visible; lower devices or use device=cpu")
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device("cpu")


@contextmanager
def join(
    device_name: str, timeout: float, folder: Path, claim: Callable[[], AbstractContextManager[None]]
) -> Iterator[World]:
    """Joins the processes of the run that the environment variables RANK, WORLD_SIZE and LOCAL_RANK describe.

    Args:
        device_name: auto, cpu or cuda.
        timeout: seconds that a process waits for another one before it fails.
        folder: the run folder, which all processes must see.
        claim: a context that holds the folder's lock, entered on rank 0.

    Raises:
        UserError: a device is missing, or the folder is in use or not shared. All processes raise, and one reports it.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank, local_size = (
        int(os.environ.get(f"LOCAL_{name}", n)) for name, n in (("RANK", rank), ("WORLD_SIZE", size))
    )
    own = STORE in os.environ
    with ExitStack() as claimed:

        def prepare() -> torch.device:
            device = pick_device(device_name, local_rank, local_size, own=own)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            if rank == 0:
                claimed.enter_context(claim())
            return device

        if size == 1:
            yield World(0, 1, prepare())
            return
        store = _store(rank, size, timeout)
        device = _agree(store, "start", rank, size, timeout, prepare)
        _agree(store, "folder", rank, size, timeout, lambda: _see_folder(store, folder, rank, timeout))
        # gloo in addition to NCCL: numbers and objects are exchanged between CPUs, so that no GPU waits for them.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
            device_id=device if device.type == "cuda" else None,
        )
        try:
            yield World(rank, size, device)
        except Interrupted as error:
            if error.steps:  # all processes leave the training loop together
                dist.destroy_process_group()
            raise
        # After any other exception another process may wait in a collective, and NCCL would wait for it in turn.
        dist.destroy_process_group()


def _store(rank: int, size: int, timeout: float) -> dist.Store:
    """Connects to the key-value store through which processes communicate before the process group exists."""
    place = os.environ.get(STORE)
    if place is None:
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timedelta(seconds=timeout)))
        return store
    port, _, listener = place.partition(":")
    return dist.TCPStore(
        "127.0.0.1",
        int(port),
        size,
        is_master=rank == 0,
        timeout=timedelta(seconds=timeout),
        wait_for_workers=False,
        master_listen_fd=int(listener) if listener else None,
    )


def _agree(store: dist.Store, what: str, rank: int, size: int, timeout: float, work: Callable[[], Any]) -> Any:
    """Calls `work` on every process; if it fails on one, all processes raise."""
    failure: Exception | None = None
    result = None
    try:
        result = work()
    except UserError as error:
        failure = error
    store.set(f"{what}/{rank}", "" if failure is None else str(failure))
    # Polling instead of the store's own waiting, which signals cannot interrupt.
    told = [_note(store, f"{what}/{other}", timeout) for other in range(size)]
    store.add(f"{what}/read", 1)
    if not any(told):
        return result
    if rank == 0:  # this process may host the store, so it waits until the others have read
        until = time.monotonic() + SHARED_WAIT
        while store.add(f"{what}/read", 0) < size and time.monotonic() < until:
            time.sleep(0.02)
    speaker = next(other for other in range(size) if told[other])
    if failure is not None and rank == speaker:
        raise failure
    raise Told(told[speaker])


def _note(store: dist.Store, key: str, timeout: float) -> str:
    until = time.monotonic() + timeout
    while not store.check([key]):
        if time.monotonic() > until:
            raise UserError(
                f"another process of this run did not respond within {timeout:g} seconds; see the "
                f"messages of that process"
            )
        time.sleep(0.02)
    return store.get(key).decode()


def _see_folder(store: dist.Store, folder: Path, rank: int, timeout: float) -> None:
    """Checks that all processes see the run folder, where rank 0 writes the checkpoints that they read."""
    path = folder / ".nodes"
    if rank == 0:
        token = secrets.token_hex(8)
        write_bytes(path, lambda file: file.write(token.encode()))
        store.set("token", token)
    token = _note(store, "token", timeout)
    until = time.monotonic() + SHARED_WAIT
    while not (path.is_file() and path.read_text() == token):
        if time.monotonic() > until:
            raise UserError(
                f"{socket.gethostname()} does not see files that process 0 writes to "
                f"{folder.resolve()}; choose a folder "
                f"on a shared file system with hydra.run.dir=FOLDER"
            )
        time.sleep(0.1)
