"""The processes of one run: the only place that knows torch.distributed."""

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
SHARED_WAIT = 5.0  # seconds in which a network file system must show a new file to all nodes


class Told(UserError):
    """Another process of this run has the trouble and says so itself."""


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
        """The model with averaged gradients. Its BatchNorm statistics stay those of each process, see `share_buffers`."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        # The gradient of a 1x1 convolution has other strides than its weight, but the same order in memory.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        keep = (
            "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers"
        )  # its older name
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **{keep: False})

    def synchronize_norms(self, model: nn.Module) -> nn.Module:
        """The model with BatchNorm over the clips of all processes in training. Weights keep their names.

        Raises:
            UserError: the devices are no GPUs, for which alone torch has this layer.
        """
        if self.device.type != "cuda":
            raise UserError("sync_batchnorm=true works on CUDA devices only; leave it out")
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every process the buffers of rank 0, which are those that checkpoints hold.

        Running statistics of BatchNorm are not read in a training step, so once before an evaluation is enough. Those of
        rank 0 follow its own share of the clips, as in the released programs, where `nn.DataParallel` keeps those of the
        first GPU.
        """
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def largest(self, number: int) -> int:
        """The largest number of all processes; exchanged between the CPUs, so no GPU waits for it."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

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


def lost_contact(error: BaseException) -> bool:
    """Whether an exception says that another process of the run no longer answers."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def pick_device(name: str, local_rank: int, devices: int, *, own: bool = True) -> torch.device:
    """The device of this process; `auto` is CUDA where there is one.

    Args:
        name: auto, cpu or cuda.
        local_rank: this process among those of this machine.
        devices: processes on this machine.
        own: we have started them. Others (srun) may let each process see one GPU only, its own.
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
    """Joins the processes that the environment names (RANK, WORLD_SIZE, LOCAL_RANK: ours or another starter's).

    Args:
        device_name: auto, cpu or cuda.
        timeout: seconds after which a process that waits for another one gives up.
        folder: the run folder; every process must see the same one.
        claim: takes the folder, on rank 0.

    Raises:
        UserError: a device is missing, the folder is taken or not shared. All processes leave then, and one says why.
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
        # gloo beside NCCL: plain numbers and objects go from CPU to CPU, and no GPU waits for them.
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
    """Where the processes leave each other notes before they are a group."""
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
    """Does some work on every process; if it fails on one of them, all raise."""
    failure: Exception | None = None
    result = None
    try:
        result = work()
    except UserError as error:
        failure = error
    store.set(f"{what}/{rank}", "" if failure is None else str(failure))
    # Asked again and again instead of waiting in the store, where no signal could end us.
    told = [_note(store, f"{what}/{other}", timeout) for other in range(size)]
    store.add(f"{what}/read", 1)
    if not any(told):
        return result
    if rank == 0:  # the store may live in this process: the others read first
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
                f"another process of this run has not come within {timeout:g} seconds; see its own messages"
            )
        time.sleep(0.02)
    return store.get(key).decode()


def _see_folder(store: dist.Store, folder: Path, rank: int, timeout: float) -> None:
    """Rank 0 leaves a note in the run folder: every process must find it there, for each reads checkpoints itself."""
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
                f"{socket.gethostname()} does not see what process 0 writes to {folder.resolve()}; give all nodes a folder "
                f"on a shared file system with hydra.run.dir=FOLDER"
            )
        time.sleep(0.1)
