"""The policies of AdaFocus V1: places drawn from a distribution, learned by reinforcement.

Source: AdaFocus V1 (arXiv 2105.03245); spec adafocus_v1 sections 2.1, 2.2 and 6.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from adafocus.layers.precision import full_precision, widen


@dataclass
class Decision:
    """What a policy makes of the steps of a batch: B videos, S steps.

    Attributes:
        parameters: (B, S, N) cell probabilities of a grid, or (B, S, 2) means of a Gaussian.
        values: (B, S), the critic's estimate of the return.
    """

    parameters: Tensor
    values: Tensor


class _ActorCritic(nn.Module):
    """Encoder of single steps, a GRU over steps from a zero state, an actor and a critic; float32 under autocast."""

    def __init__(self, encoder: nn.Module, hidden: int, actions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.actor = nn.Linear(hidden, actions)
        self.critic = nn.Linear(hidden, 1)

    def forward(self, maps: Tensor) -> Decision:
        """(B, S, D, h, w) glance maps of the steps, in order. A step knows the steps before it."""
        with full_precision(maps):
            code = self.encoder(widen(maps).flatten(0, 1)).unflatten(0, maps.shape[:2])
            memory, _ = self.gru(code)
            return Decision(self.activate(self.actor(memory)), self.critic(memory).squeeze(-1))

    def activate(self, scores: Tensor) -> Tensor:
        raise NotImplementedError


class GridPolicy(_ActorCritic):
    """A cell of an n x n grid for each step (ActivityNet, FCVID, Mini-Kinetics).

    Args:
        channels: D of the glance map.
        map_size: (h, w) of it.
        grid: n.
        hidden: width of encoder and GRU.
        convolution: a 1x1 convolution to 32 channels before the linear layer; else two linear layers on the whole map.
    """

    def __init__(
        self, channels: int, map_size: tuple[int, int], *, grid: int = 7, hidden: int = 1024, convolution: bool = True
    ) -> None:
        if grid < 2:
            raise ValueError(f"a grid of {grid} x {grid} places leaves no choice; it needs at least 2 on each side")
        places = map_size[0] * map_size[1]
        if convolution:
            layers = [nn.Conv2d(channels, 32, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32 * places, hidden)]
        else:
            layers = [nn.Flatten(), nn.Linear(channels * places, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden)]
        super().__init__(nn.Sequential(*layers, nn.ReLU()), hidden, grid**2)
        self.grid = grid

    def activate(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def best(self, decision: Decision) -> Tensor:
        """(B, S) the likeliest cells; the first of equals."""
        return decision.parameters.argmax(-1)

    def sample(self, decision: Decision, draws: Tensor) -> Tensor:
        """(B, S) cells for uniform draws (B, S, 2), of which the first number is used."""
        ladder = decision.parameters.detach().cumsum(-1)
        return (ladder < draws[..., :1] * ladder[..., -1:]).sum(-1).clamp(max=self.grid**2 - 1)

    def log_probability(self, decision: Decision, actions: Tensor) -> Tensor:
        return Categorical(probs=decision.parameters, validate_args=False).log_prob(actions)

    def entropy(self, decision: Decision) -> Tensor:
        return Categorical(probs=decision.parameters, validate_args=False).entropy()

    def where(self, actions: Tensor) -> Tensor:
        """(..., 2) fractions (y, x) of the free range."""
        place = torch.stack((actions.div(self.grid, rounding_mode="floor"), actions % self.grid), -1)
        return place / (self.grid - 1)


class GaussianPolicy(_ActorCritic):
    """A continuous place for each step (Something-Something): a Gaussian of fixed width around a mean.

    Args:
        channels: of the stacked glance maps of a step (frames times D).
        map_size: (h, w).
        hidden: width of encoder and GRU.
        deviation: standard deviation of both coordinates, as fractions of the free range.
        norm: BatchNorm after convolution and linear layer (the published setting).
    """

    def __init__(
        self,
        channels: int,
        map_size: tuple[int, int],
        *,
        hidden: int = 1024,
        deviation: float = 0.25,
        norm: bool = True,
    ) -> None:
        if deviation <= 0:
            raise ValueError(f"deviation={deviation} must be greater than 0")
        convolution = nn.Conv2d(channels, 64, 1, bias=False)
        linear = nn.Linear(64 * map_size[0] * map_size[1], hidden)
        if norm:
            layers = [
                convolution,
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.Flatten(),
                linear,
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
            ]
        else:
            layers = [convolution, nn.ReLU(), nn.Flatten(), linear, nn.ReLU()]
        super().__init__(nn.Sequential(*layers), hidden, 2)
        self.deviation = deviation

    def activate(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def best(self, decision: Decision) -> Tensor:
        """(B, S, 2) the means."""
        return decision.parameters

    def sample(self, decision: Decision, draws: Tensor) -> Tensor:
        """(B, S, 2) places for uniform draws (B, S, 2), clipped to the frame."""
        normal = math.sqrt(2) * torch.erfinv((2 * draws - 1).clamp(-0.999999, 0.999999))
        return (decision.parameters.detach() + self.deviation * normal).clamp(0, 1)

    def log_probability(self, decision: Decision, actions: Tensor) -> Tensor:
        """Of the clipped place under the unclipped Gaussian, as released."""
        distance = ((actions - decision.parameters) ** 2).sum(-1) / (2 * self.deviation**2)
        return -distance - 2 * math.log(self.deviation) - math.log(2 * math.pi)

    def entropy(self, decision: Decision) -> Tensor:
        """Constant: nothing learns from it."""
        value = 1 + math.log(2 * math.pi) + 2 * math.log(self.deviation)
        return torch.full_like(decision.values, value)

    def where(self, actions: Tensor) -> Tensor:
        """(..., 2) fractions (y, x) of the free range."""
        return actions
