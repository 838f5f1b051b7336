"""Cost of a forward pass in multiply-adds, counted on torch's meta device, without computing anything.

A multiply-add (multiply-accumulate, MAC) is one multiplication with one addition; the papers of this field print
billions of them as "GFLOPs". torch's FLOP counter counts them on the meta device: convolutions, linear and recurrent
layers, and matrix products. BatchNorm, activations, pooling and resizing are not counted, as in the papers.

The GMACs that timm publishes are counted by fvcore, which adds 2 for each value that a BatchNorm writes, 5 for each of
a LayerNorm or GroupNorm, and 1 for each value that is pooled to a fixed size; `multiply_adds` can do the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adafocus.core.cost import CROP, Cost, Part

PER_BLENDED_VALUE = 4  # multiply-adds of one bilinear output value


def count(model: nn.Module, segments: int, frame_size: int, channels: int = 3) -> Cost:
    """Counts a network on the meta device for one video of `segments` square frames.

    `model.parts` are the parts (`core.cost.Part`); `model.crop_values` (optional) is the number of pixel values that
    cropping computes per video. A module may define `uncounted(input)`, the multiply-adds that torch's counter misses.
    """
    frames = torch.empty(1, segments, channels, frame_size, frame_size, device="meta")
    everything = _count(model, frames)
    parts = everything
    if "auxiliary" in signature(model.forward).parameters:  # logits that only training needs are not counted
        lean = _count(model, frames, auxiliary=False)
        parts = {part: cost if part.auxiliary else lean[part] for part, cost in everything.items()}
    published = sum(cost for part, cost in everything.items() if part.published)
    return Cost({**parts, CROP: PER_BLENDED_VALUE * getattr(model, "crop_values", 0)}, published)


def multiply_adds(module: nn.Module, *inputs: torch.Tensor, like_fvcore: bool = False) -> int:
    """Returns the multiply-adds of one call of any module in evaluation mode.

    Args:
        module: the module, on the device of the inputs; the meta device is enough.
        inputs: its arguments.
        like_fvcore: count normalization and pooling as well, as fvcore 0.1.5 does (`batchnorm_flop_jit`,
            `norm_flop_counter` and `elementwise_flop_counter` in fvcore/nn/jit_handles.py), and so timm's published
            figures.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FVCORE if like_fvcore else {})
    module.eval()
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.get_total_flops() // 2


def _per_value(multiply_adds: int) -> Any:
    def counted(shape: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * multiply_adds * math.prod(shape)  # torch counts a multiply-add as two operations

    return counted


_ATEN = torch.ops.aten
_FVCORE = {
    _ATEN.native_batch_norm: _per_value(2),
    _ATEN._native_batch_norm_legit_no_training: _per_value(2),
    _ATEN.cudnn_batch_norm: _per_value(2),
    _ATEN.native_layer_norm: _per_value(5),
    _ATEN.native_group_norm: _per_value(5),
    _ATEN._adaptive_avg_pool2d: _per_value(1),
}


def _count(model: nn.Module, frames: torch.Tensor, **options: bool) -> dict[Part, int]:
    """Returns the multiply-adds of one forward pass by part."""
    counter = FlopCounterMode(display=False)
    model.eval()
    with torch.no_grad(), counter, _uncounted(model) as more:
        model(frames, **options)
    counts = counter.get_flop_counts()
    root = type(model).__name__
    found = {
        part: sum(sum(counts.get(f"{root}.{module}", {}).values()) for module in part.modules) // 2
        for part in cast(Sequence[Part], model.parts)
    }
    everything = sum(counts["Global"].values()) // 2
    if sum(found.values()) != everything:
        raise RuntimeError(f"{root}.parts names {sum(found.values())} of {everything} multiply-adds")
    for part in found:
        within = tuple(f"{module}." for module in part.modules)
        found[part] += sum(cost for path, cost in more.items() if path.startswith(within))
    return found


@contextmanager
def _uncounted(model: nn.Module) -> Iterator[dict[str, int]]:
    """Yields a dict that collects, by module path, the results of the modules' `uncounted(input)` in a forward pass."""
    found: dict[str, int] = {}

    def note(path: str, module: Any, inputs: tuple[Any, ...]) -> None:
        found[path] = found.get(path, 0) + module.uncounted(inputs[0])

    hooks = [
        module.register_forward_pre_hook(partial(note, path))
        for path, module in model.named_modules()
        if hasattr(module, "uncounted")
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
