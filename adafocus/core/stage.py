"""What a stage is: who learns, by which loss, and how its network answers in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.output import Output, Overrides
from adafocus.core.variants import Variant

#: uint8 clips (B, T, H, W, 3) to what networks read, (B, T, 3, H, W).
Normalize = Callable[[Tensor], Tensor]


@dataclass
class ParamGroup:
    """Parameters that learn at a multiple of the schedule's rate and weight decay."""

    name: str
    parameters: list[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0


@dataclass
class StepResult:
    """One training step: the scalar to minimize and scalars worth logging (all on the device, detached but the loss)."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Stage(ABC):
    """Owns a training step. The loop calls it and knows nothing else.

    Attributes:
        model: the network.
        net: what a step calls: `model`, or its distributed wrapper, which the loop puts here.
        rounds: optimizer steps on one batch; `step` is called so many times with it.
        variants: the answers that a trained network can give; the first is the method's own, the others are controls
            (for instance the same networks looking at a random patch).
        place_size: 2 where a policy chooses corners of squares, 4 where it chooses rectangles; 0 without a policy.
        constant_place: (place_size,) the mean of the places that were learned on the training set, as `Output.where` has
            them. It is measured at the end of training and is part of the checkpoint.
    """

    name: str
    rounds: int = 1
    variants: tuple[Variant, ...]
    place_size: int = 0
    constant_place: Tensor | None = None

    def __init__(self, model: nn.Module, normalize: Normalize, *, frozen_norm: Iterable[nn.Module] = ()) -> None:
        """
        Args:
            model: the network.
            normalize: uint8 clips (B, T, H, W, 3) to what the network reads (B, T, 3, H, W).
            frozen_norm: normalization layers that stay in evaluation mode while training (frozen BatchNorm).
        """
        self.model = model
        self.net: nn.Module = model
        self.normalize = normalize
        self.frozen_norm = list(frozen_norm)

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """What learns; every parameter that is in no group is frozen before the model is wrapped."""

    @abstractmethod
    def step(self, batch: Batch) -> StepResult:
        """Forward and loss of one batch, in training mode."""

    @abstractmethod
    def evaluate(self, batch: Batch, variants: tuple[Variant, ...]) -> dict[Variant, Output]:
        """Answers of the asked variants, in evaluation mode and without gradient."""

    @torch.no_grad()
    def learned_places(self, batch: Batch) -> Tensor:
        """(B, T or 1, place_size) the places that the policy chooses in evaluation; the focus network does not run."""
        model: Any = self.model.eval()
        return model.decide(model.glance(self.glance_frames(batch))).where

    def glance_frames(self, batch: Batch) -> Tensor:
        """(B, G, 3, S, S) normalized frames that the glance network of a clip sees, in processing order."""
        model: Any = self.model
        return model.glance_frames(self.normalize(batch.frames), Overrides())

    @property
    def needs_constant(self) -> bool:
        """Whether one of the variants looks at the constant place."""
        return any(variant.where == "constant" for variant in self.variants)

    @property
    def answerable(self) -> tuple[Variant, ...]:
        """The variants that `evaluate` can answer now: before the constant place is known, all others."""
        known = self.constant_place is not None
        return tuple(variant for variant in self.variants if known or variant.where != "constant")

    def costs(self, parts: dict[str, int]) -> dict[Variant, int]:
        """Multiply-adds a video of each variant, from those of the model's parts (see `engine.cost`)."""
        return {self.variants[0]: sum(n for name, n in parts.items() if not name.startswith("auxiliary"))}

    def train(self) -> None:
        """Puts every part into the mode it trains in."""
        self.net.train()
        for layer in self.frozen_norm:
            layer.eval()

    def state_dict(self) -> dict[str, Tensor]:
        """State beyond the model's: the constant place, once it is known."""
        return {} if self.constant_place is None else {"constant_place": self.constant_place}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """
        Raises:
            ValueError: the state is not one that this stage keeps.
        """
        if not isinstance(state, dict) or set(state) - {"constant_place"}:
            raise ValueError(
                f"stage {self.name} keeps only its constant place, and the checkpoint holds something else"
            )
        place = state.get("constant_place")
        if place is None or not self.needs_constant:
            return
        sound = isinstance(place, Tensor) and place.is_floating_point() and place.shape == (self.place_size,)
        if not sound or not bool(((place >= 0) & (place <= 1)).all()):
            raise ValueError(f"the constant place of the checkpoint must be {self.place_size} numbers from 0 to 1")
        self.constant_place = place.detach().float()


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """All BatchNorm layers of a network."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
