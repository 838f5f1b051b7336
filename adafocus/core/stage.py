"""`Stage`, a phase of training: which parameters are trained, with which loss, and how the network is evaluated."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.objective import Objective
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.core.variants import Variant

#: Converts uint8 clips (B, T, H, W, 3) to normalized float frames (B, T, 3, H, W), which networks read.
Normalize = Callable[[Tensor], Tensor]

#: Attributes under which networks hold their backbones.
BACKBONE_NAMES = ("backbone", "glance_net", "focus_net")


@dataclass
class ParamGroup:
    """A group of parameters; `rate` and `decay` multiply the learning rate and the weight decay of the schedule."""

    name: str
    parameters: list[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0


@dataclass
class StepResult:
    """Result of a training step: the loss, and scalars to log (detached). All of them stay on the device."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class PatchNetwork(Protocol):
    """The members of a network with patches that evaluation uses; `methods.network.AdaptiveNetwork` describes them."""

    frame_size: int
    num_places: int
    place_per_frame: bool
    chooses_cells: bool

    def glance(self, frames: Tensor) -> GlanceOutput: ...

    def decide(self, glance: GlanceOutput) -> Plan: ...

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor: ...

    def focus_frames(self, frames: Tensor) -> Tensor: ...

    def boxes(self, where: Tensor) -> Tensor: ...

    def mean_place(self, where: Tensor) -> Tensor: ...


class Stage(ABC):
    """The training step and the evaluation of one network; the training loop calls only this interface.

    Attributes:
        model: the network.
        net: the module that a step calls: `model`, or its DistributedDataParallel wrapper, which the trainer sets.
        rounds: number of optimizer steps per batch; `step` is called once for each.
        supervised: whether `step` learns from labels by `objective`; clips are mixed for such stages only.
        objective: the loss of a prediction; plain cross entropy unless it is replaced.
        variants: the evaluation variants of the network. The first is the method itself; the others are controls, such
            as the same networks with a random patch.
        place_size: numbers per patch location: 2 for policies that choose corners of square patches, 4 for rectangles,
            0 without a policy.
        constant_place: (place_size,), or (P, place_size) if P patches are cut from every frame: the mean of the
            locations that the policy chooses on the training set, in the format of `Output.where`. It is measured at
            the end of training and stored in the checkpoint.
    """

    name: str
    rounds: int = 1
    supervised: bool = True
    variants: tuple[Variant, ...]
    place_size: int = 0
    constant_place: Tensor | None = None

    def __init__(self, model: nn.Module, normalize: Normalize, *, frozen_norm: Iterable[nn.Module] = ()) -> None:
        """Makes a stage for a network.

        Args:
            model: the network.
            normalize: converts uint8 clips (B, T, H, W, 3) to the network's input (B, T, 3, H, W).
            frozen_norm: normalization layers that stay in evaluation mode while training (frozen BatchNorm).
        """
        self.model = model
        self.net: nn.Module = model
        self.normalize = normalize
        self.frozen_norm = list(frozen_norm)
        self.frozen: set[int] = set()  # `id(parameter)` of the parameters that `freeze` keeps
        self.objective = Objective()

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Returns the trained parameters in groups; the trainer freezes every parameter that is in no group."""

    @abstractmethod
    def step(self, batch: Batch) -> StepResult:
        """Computes the loss of one batch, in training mode."""

    @abstractmethod
    def evaluate(self, batch: Batch, variants: tuple[Variant, ...]) -> dict[Variant, Output]:
        """Predicts a batch in each of the given evaluation variants, in evaluation mode and without gradient."""

    @torch.no_grad()
    def learned_places(self, batch: Batch) -> Tensor:
        """Returns the policy's patch locations (B, T or 1, place_size), without running the focus network."""
        self.model.eval()
        return self.chooser.decide(self.chooser.glance(self.glance_frames(batch))).where

    def glance_frames(self, batch: Batch) -> Tensor:
        """Returns the normalized frames (B, G, 3, S, S) that the glance network sees, in processing order."""
        return self.normalize(self.chooser.glance_frames(batch.frames, Overrides()))

    @property
    def chooser(self) -> PatchNetwork:
        """The network of a stage whose `place_size` is not 0."""
        return cast(PatchNetwork, self.model)

    @property
    def backbones(self) -> list[nn.Module]:
        """The backbones of the network; `schedule.layer_decay` counts their blocks."""
        return [module for name, module in self.model.named_children() if name in BACKBONE_NAMES]

    @property
    def needs_constant(self) -> bool:
        """Whether an evaluation variant uses the constant patch location."""
        return any(variant.where == "constant" for variant in self.variants)

    @property
    def answerable(self) -> tuple[Variant, ...]:
        """The variants that can be evaluated, without the constant patch as long as its location is not measured."""
        known = self.constant_place is not None
        return tuple(variant for variant in self.variants if known or variant.where != "constant")

    def costs(self, cost: Cost) -> dict[Variant, int]:
        """Returns the multiply-adds (MACs) per video of each variant; those of the whole model unless overridden."""
        return dict.fromkeys(self.variants, cost.total)

    def freeze(self, pattern: str) -> None:
        """Excludes parameters from training, and the running statistics of their BatchNorm layers from updates.

        Args:
            pattern: a regular expression; parameters whose full names begin with a match are frozen.

        Raises:
            ValueError: no parameter's name begins with a match, or the pattern is not a regular expression.
        """
        try:
            begins = re.compile(pattern).match
        except re.error as error:
            raise ValueError(f"frozen={pattern!r} is not a regular expression: {error}") from error
        self.frozen = {id(parameter) for name, parameter in self.model.named_parameters() if begins(name)}
        if not self.frozen:
            first = next(iter(dict(self.model.named_parameters())))
            raise ValueError(f"frozen={pattern!r} is the beginning of no parameter's name, such as {first}")
        for layer in batch_norms(self.model):
            if layer not in self.frozen_norm and any(id(parameter) in self.frozen for parameter in layer.parameters()):
                self.frozen_norm.append(layer)

    def learning_groups(self) -> list[ParamGroup]:
        """Returns `param_groups` without the frozen parameters."""
        groups = [
            replace(group, parameters=[one for one in group.parameters if id(one) not in self.frozen])
            for group in self.param_groups()
        ]
        return [group for group in groups if group.parameters]

    def compiled(self, **options: Any) -> nn.Module:
        """Returns the compiled network for training steps; `options` are those of `torch.compile`."""
        return cast(nn.Module, torch.compile(self.model, **options))

    def train(self) -> None:
        """Sets training mode, except for the normalization layers that are frozen."""
        self.net.train()
        for layer in self.frozen_norm:
            layer.eval()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state outside of the model: the constant patch location, if it is measured."""
        return {} if self.constant_place is None else {"constant_place": self.constant_place}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets the constant patch location from a checkpoint's state of the stage.

        Raises:
            ValueError: the state has other keys or values than `state_dict` returns.
        """
        if not isinstance(state, dict) or set(state) - {"constant_place"}:
            raise ValueError(
                f"stage {self.name}: the checkpoint's stage state may hold 'constant_place' only, but has other keys"
            )
        place = state.get("constant_place")
        if place is None or not self.needs_constant:
            return
        shapes = ((self.place_size,), (getattr(self.model, "num_places", 1), self.place_size))
        sound = isinstance(place, Tensor) and place.is_floating_point() and place.shape in shapes
        if not sound or not bool(((place >= 0) & (place <= 1)).all()):
            raise ValueError(f"constant_place of the checkpoint must be {self.place_size} numbers from 0 to 1")
        self.constant_place = place.detach().float()


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Returns all BatchNorm layers of a network."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
