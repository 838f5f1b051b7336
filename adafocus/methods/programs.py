"""Splits a network into up to three modules that map tensors to tensors, for use without this package after export.

    glance   frames -> fields of `GlanceOutput`, under their names
    policy   some of these fields -> places[, chosen]
    focus    frames, places, some of these fields -> logits

`places` are the patch locations, `Plan.where` (renamed because ONNX has an operator "Where"), and `chosen` the frames,
`Plan.frames`. A recognizer has one program only, frames -> logits. Frames are normalized, (B, T, 3, S, S), in temporal
order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adafocus.core.output import GlanceOutput, Overrides, Plan, given

if TYPE_CHECKING:
    from adafocus.methods.network import AdaptiveNetwork


@dataclass
class Program:
    """One exportable part of a network.

    Attributes:
        name: "glance", "policy" or "focus".
        module: the module, which takes and returns tensors.
        inputs, outputs: names of these tensors. Inputs that no other program returns are sets of frames.
        frames: number of frames of these inputs, by name.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frames: dict[str, int] = field(default_factory=dict)


class Call(nn.Module):
    """Wraps a function of a network as an nn.Module, because torch.export takes modules."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network, self.call = network, call
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Calls the function with the network and the tensors."""
        return self.call(self.network, *tensors)


def three_programs(network: AdaptiveNetwork) -> list[Program]:
    """Returns the programs of a network with a glance and a focus network."""
    sets = network.frame_sets
    first, last = next(iter(sets)), list(sets)[-1]
    chosen = ("chosen",) if network.chooses_frames else ()
    reads, uses = network.decide_fields, network.focus_fields
    return [
        Program("glance", Call(network, _glance), (first,), network.glance_fields, {first: sets[first]}),
        Program("policy", Call(network, _decide), reads, ("places", *chosen)),
        Program("focus", Call(network, _focus), (last, "places", *uses), ("logits",), {last: sets[last]}),
    ]


def _glance(network: AdaptiveNetwork, frames: Tensor) -> tuple[Tensor, ...]:
    if network.shares_frames:
        frames = network.glance_frames(frames, Overrides())  # from temporal to processing order
    output = network.glance(frames)
    return tuple(getattr(output, name) for name in network.glance_fields)


def _decide(network: AdaptiveNetwork, *fields: Tensor) -> Tensor | tuple[Tensor, ...]:
    plan = network.decide(_glance_output(network.decide_fields, fields))
    return (plan.where, given(plan.frames)) if network.chooses_frames else plan.where


def _focus(network: AdaptiveNetwork, frames: Tensor, where: Tensor, *fields: Tensor) -> Tensor:
    if network.shares_frames:
        frames = network.glance_frames(frames, Overrides())
    return network.focus(frames, Plan(where), _glance_output(network.focus_fields, fields)).logits


def _glance_output(names: tuple[str, ...], fields: tuple[Tensor, ...]) -> GlanceOutput:
    """Makes a `GlanceOutput` with only the given fields, since a program reads no others."""
    values: dict[str, Any] = {"maps": None, "features": None}
    return GlanceOutput(**values | dict(zip(names, fields, strict=True)))
