"""Tensors that say they are on a GPU while their numbers are on the CPU.

They find, without a GPU, what a program does wrong on one: an operation that mixes devices raises, and everything that
would make the CPU wait for the GPU (`.item()`, a boolean mask as index, a copy that is not asynchronous) is recorded
with the line of the package that caused it.

    with pretended_gpu() as waits:
        put_on_gpu(network)
        ...
    assert not waits

Asynchronous copies in both directions count as no wait. That is true of copies from pinned memory, and to the device
also of small ones from other memory, which CUDA copies to a buffer of its own first.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
#: Operators that return numbers, or a tensor whose size depends on numbers, to the CPU.
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2"}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
FACTORIES = {"empty", "empty_strided", "zeros", "ones", "full", "arange", "linspace", "scalar_tensor"}


class MixedDevices(RuntimeError):
    """An operation got tensors of the CPU and of the GPU."""


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; `numbers` is the CPU tensor below."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnGpu:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device("cpu"),  # for torch's own code in C++, which would look for CUDA otherwise
        )

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    def record_stream(self, stream: object) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _STATE.run(func, args, kwargs or {})


def wrapped(x: Any) -> Any:
    return OnGpu(x) if isinstance(x, Tensor) and not isinstance(x, OnGpu) else x


def numbers(x: Any) -> Any:
    return x.numbers if isinstance(x, OnGpu) else x


class _State:
    """What is recorded, and whether autograd runs at present."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.backward = False

    def wait(self, what: str) -> None:
        ours = [f for f in traceback.extract_stack() if "/adafocus/" in f.filename and "/tests/" not in f.filename]
        place = f"{ours[-1].filename.split('/adafocus/')[-1]}:{ours[-1].lineno}" if ours else "torch"
        self.waits[f"{place} {what}"] += 1

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        gpu = any(isinstance(x, OnGpu) for x in tensors)
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if name == "_to_copy" and device is not None:
            return self._copy(func, args, kwargs, device, gpu)
        made_there = device is not None and device.type == "cuda"
        if not gpu and not made_there:
            return (
                tree_map(wrapped, func(*args, **kwargs))
                if self.backward and name in FACTORIES
                else func(*args, **kwargs)
            )
        self._check(name, args, tensors)
        inner, options = tree_map(numbers, args), tree_map(numbers, kwargs)
        if made_there:
            options["device"] = torch.device("cpu")
        out = tree_map(wrapped, func(*inner, **options))
        return out if made_there or name in WAITING else return_and_correct_aliasing(func, args, kwargs, out)

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any], device: torch.device, gpu: bool) -> Any:
        options = {key: value for key, value in kwargs.items() if key != "device"}
        there = device.type == "cuda"
        if there and not gpu and not kwargs.get("non_blocking", False):
            self.wait("copy to the GPU")
        out = func(numbers(args[0]), **options)
        return wrapped(out) if there or gpu else out  # autograd converts to the device that C++ sees

    def _check(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        cpu = [x for x in tensors if not isinstance(x, OnGpu)]
        if name in WAITING:
            self.wait(name)
        if name == "copy_":
            if cpu:
                self.wait("copy_ between devices")
            return
        if name in INDEXING:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                self.wait("boolean mask as index")
            if any(not isinstance(x, OnGpu) for x in indices):
                self.wait("index on the CPU")
            cpu = [x for x in cpu if not any(x is index for index in indices)]
        if any(x.ndim for x in cpu) and name != "lift_fresh":
            raise MixedDevices(f"{name} mixes devices: {[tuple(x.shape) for x in cpu]} are on the CPU")


_STATE = _State()


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _STATE.run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Calls that reach the dispatcher only after they have lost the device they were made for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnGpu):
            _STATE.wait("new_tensor of numbers")
            return OnGpu(torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)))
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            _STATE.wait("torch.tensor of numbers")
            return OnGpu(torch.tensor(*args, **{key: value for key, value in kwargs.items() if key != "device"}))
        if func is torch.Tensor.tolist and isinstance(args[0], OnGpu):
            _STATE.wait("tolist")
            return args[0].detach().numbers.tolist()
        if func is torch.Tensor.numpy and isinstance(args[0], OnGpu):
            raise MixedDevices("numpy() of a tensor on the GPU")
        if func in (torch.Tensor.cpu, torch.Tensor.to) and isinstance(args[0], OnGpu):
            named = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, (str, torch.device))]
            asked = func is torch.Tensor.cpu or any(torch.device(x).type == "cpu" for x in named)
            if asked and sys._getframe(1).f_globals["__name__"].startswith("torch."):
                return args[0]  # torch groups tensors by the device that C++ sees
            if asked:
                if not kwargs.get("non_blocking", False):
                    _STATE.wait("copy to the CPU")
                return args[0].detach().numbers
        if func is not torch.Tensor.backward:
            return func(*args, **kwargs)
        _STATE.backward = True
        try:
            return func(*args, **kwargs)
        finally:
            _STATE.backward = False


def _gru(self: nn.GRU, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`nn.GRU.forward` of one layer in plain operators; torch's own chooses a kernel by the device that C++ sees."""
    state = x.new_zeros(x.shape[0], self.hidden_size) if state is None else state[0]
    inputs, found = nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0), []
    for step in range(x.shape[1]):
        reset, update, new = inputs[:, step].chunk(3, -1)
        reset_, update_, new_ = nn.functional.linear(state, self.weight_hh_l0, self.bias_hh_l0).chunk(3, -1)
        keep = (update + update_).sigmoid()
        state = (1 - keep) * (new + (reset + reset_).sigmoid() * new_).tanh() + keep * state
        found.append(state)
    return torch.stack(found, 1), state[None]


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v


class Streams:
    """Stands for torch.cuda's streams and records what the program asks of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def stream(self, *_: Any) -> Any:
        self.calls.append("side stream")
        return nullcontext()

    def wait_stream(self, _: Any) -> None:
        self.calls.append("current stream waits")


@contextmanager
def pretended_gpu() -> Iterator[Counter[str]]:
    """A GPU cuda:0 for the code inside; yields the places that would wait for it, with how often they did."""
    _STATE.waits = Counter()
    streams = Streams()
    autocast, enabled = torch.autocast, torch.is_autocast_enabled
    changed: list[tuple[Any, str, Callable[..., Any]]] = [
        (nn.GRU, "forward", _gru),
        (nn.functional, "scaled_dot_product_attention", _attention),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda, "synchronize", lambda *_: _STATE.wait("synchronize")),
        (torch.cuda, "Stream", lambda *_, **__: streams),
        (torch.cuda, "stream", streams.stream),
        (torch.cuda, "current_stream", lambda *_: streams),
        (torch, "autocast", lambda device, *rest, **options: autocast("cpu", *rest, **options)),
        (torch, "is_autocast_enabled", lambda device="cpu": enabled("cpu")),
    ]
    with ExitStack() as stack:
        for place, name, function in changed:
            stack.enter_context(mock.patch.object(place, name, function))
        stack.enter_context(_Dispatch())
        stack.enter_context(_Functions())
        yield _STATE.waits


def put_on_gpu(module: nn.Module) -> nn.Module:
    """Moves a module to the pretended GPU, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnGpu(parameter.data), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnGpu(buffer.data)
    return module
