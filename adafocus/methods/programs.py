"""Whole networks as a few programs with tensors in and out, for use without this package.

    glance   frames -> maps, seen
    policy   maps, seen -> places[, chosen]
    focus    frames, places, seen -> logits

`places` is what `Output.where` is (ONNX has an operator of that name). A recognizer has only the last one, frames -> logits.
Frames are normalized, (B, T, 3, S, S), in temporal order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adafocus.methods.adafocus_v1.model import AdaFocusV1, AdaFocusV1TSM, Glanced
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.uni_adafocus.base import Choosing, Glance


@dataclass
class Program:
    """One network.

    Attributes:
        module: takes and returns tensors.
        inputs, outputs: their names. Inputs that no other program returns are sets of frames.
        frames: how many frames each of those sets holds.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frames: dict[str, int] = field(default_factory=dict)


class _Call(nn.Module):
    """A function of a model as a module."""

    def __init__(self, model: nn.Module, call: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.call = model, call
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See `Program`."""
        return self.call(self.model, *tensors)


def programs(model: nn.Module) -> list[Program]:
    """The programs of a network, in the order in which they run.

    Raises:
        ValueError: a network without.
    """
    if isinstance(model, Recognizer):
        frames = {"frames": model.segments}
        return [Program("focus", _Call(model, lambda m, x: m(x).logits), ("frames",), ("logits",), frames)]
    if isinstance(model, Choosing):
        glance, policy, focus = _look, _plan, _answer
    elif isinstance(model, AdaFocusV2):
        glance, policy, focus = _maps_of_v2, lambda m, maps, seen: m.policy(maps)[0], _focus_of_v2
    elif isinstance(model, AdaFocusV2TSM):
        glance, policy, focus = _maps_of_v2_tsm, lambda m, maps, seen: m.policy(maps)[:, None], _focus_of_v2_tsm
    elif isinstance(model, (AdaFocusV1, AdaFocusV1TSM)):
        glance, policy, focus = _see, _best_of_v1, _judge
    else:
        raise ValueError(f"a {type(model).__name__} cannot be exported")
    sets = _frame_sets(model)
    first, last = next(iter(sets)), list(sets)[-1]
    chosen = ("chosen",) if isinstance(model, Choosing) else ()
    return [
        Program("glance", _Call(model, glance), (first,), ("maps", "seen"), {first: sets[first]}),
        Program("policy", _Call(model, policy), ("maps", "seen"), ("places", *chosen)),
        Program("focus", _Call(model, focus), (last, "places", "seen"), ("logits",), {last: sets[last]}),
    ]


def _frame_sets(model: nn.Module) -> dict[str, int]:
    """Names and sizes of the sets of frames that the networks see."""
    if isinstance(model, Choosing):
        return {"glance_frames": model.glance_segments, "chosen_frames": model.focus_segments}
    if isinstance(model, (AdaFocusV1TSM, AdaFocusV2TSM)):
        return {"glance_frames": model.glance_segments, "focus_frames": model.focus_segments}
    return {"frames": model.segments}


def _look(model: Choosing, frames: Tensor) -> tuple[Tensor, ...]:
    glance = model.look(frames, auxiliary=False)
    # What the answer adds: the maximum over the glance frames, or on TSM the glance network's logits.
    added = glance.predicted if model.single_place else glance.seen
    return glance.maps, torch.cat([glance.features.flatten(1), added], 1)


def _parted(model: Choosing, seen: Tensor) -> tuple[Tensor, Tensor]:
    size = model.glance_segments * model.glance.width
    return seen[:, :size].unflatten(1, (model.glance_segments, -1)), seen[:, size:]


def _plan(model: Choosing, maps: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
    plan = model.plan(Glance(maps, _parted(model, seen)[0]))
    return plan.where, plan.frames


def _answer(model: Choosing, frames: Tensor, where: Tensor, seen: Tensor) -> Tensor:
    features = model.focus_features(model.patches(frames, where))
    _, added = _parted(model, seen)
    if model.single_place:
        return added + model.focus_head.per_frame(features, learn=False)[0].mean(1)
    return model.focus_steps(features, beside=added, answers=1)[0][:, -1]


def _maps_of_v2(model: AdaFocusV2, frames: Tensor) -> tuple[Tensor, ...]:
    maps = model.glance_maps(frames[:, model.order])
    return maps, maps.mean((-2, -1))


def _focus_of_v2(model: AdaFocusV2, frames: Tensor, where: Tensor, seen: Tensor) -> Tensor:
    joined = torch.cat([seen, model.focus_features(frames[:, model.order], where)], -1)
    return model.classifier(joined, answers=1)[0][:, -1]


def _maps_of_v2_tsm(model: AdaFocusV2TSM, frames: Tensor) -> tuple[Tensor, ...]:
    maps = model.glance(frames.flatten(0, 1)).unflatten(0, (-1, model.glance_segments))
    return maps, model.glance_head(maps.mean((-2, -1)), learn=False)[0]


def _focus_of_v2_tsm(model: AdaFocusV2TSM, frames: Tensor, where: Tensor, seen: Tensor) -> Tensor:
    return model.look(frames, where, (seen, None), auxiliary=False).logits


def _see(model: AdaFocusV1 | AdaFocusV1TSM, frames: Tensor) -> tuple[Tensor, ...]:
    glanced = model.see(frames)
    return glanced.maps, glanced.features


def _best_of_v1(model: AdaFocusV1 | AdaFocusV1TSM, maps: Tensor, seen: Tensor) -> Tensor:
    return model.policy.where(model.policy.best(model.policy(maps)))


def _judge(model: AdaFocusV1 | AdaFocusV1TSM, frames: Tensor, where: Tensor, seen: Tensor) -> Tensor:
    if isinstance(model, AdaFocusV1TSM):  # its clips hold the glance frames first, which are not looked at again
        return seen + model.local(frames, where)
    return model.judge(frames, Glanced(seen, seen), where).logits
