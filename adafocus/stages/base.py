"""What a stage is: who learns, by which loss, and how its network answers in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from adafocus.batch import Batch
from adafocus.models.outputs import Output
from adafocus.stages.variants import Variant


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
        variants: the answers that `evaluate` can give; the first is the method's own, the others are controls
            (for instance the same networks looking at a random patch).
    """

    name: str
    rounds: int = 1
    variants: tuple[Variant, ...]

    def __init__(
        self, model: nn.Module, normalize: Callable[[Tensor], Tensor], *, frozen_norm: Iterable[nn.Module] = ()
    ) -> None:
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

    def costs(self, parts: dict[str, int]) -> dict[Variant, int]:
        """Multiply-adds a video of each variant, from those of the model's parts (see `engine.cost`)."""
        return {self.variants[0]: sum(n for name, n in parts.items() if not name.startswith("auxiliary"))}

    def train(self) -> None:
        """Puts every part into the mode it trains in."""
        self.net.train()
        for layer in self.frozen_norm:
            layer.eval()

    def state_dict(self) -> dict[str, Tensor]:
        """State beyond the model's: none by default."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state:
            raise ValueError(f"stage {self.name} keeps no state, but the checkpoint holds {sorted(state)}")


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """All BatchNorm layers of a network."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
