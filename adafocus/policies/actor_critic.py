"""The policies of AdaFocus V1: patch locations sampled from a distribution, trained by reinforcement learning.

Source: AdaFocus V1 (arXiv 2105.03245); blackfeather-wang/AdaFocus, class `ActorCritic` in models/ppo.py and
models/ppo_continuous.py.
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
    """Output of a policy for B videos of S steps.

    Attributes:
        parameters: (B, S, grid * grid) cell probabilities of a grid, or (B, S, 2) means of a Gaussian.
        values: (B, S), the critic's estimate of the return.
        state: (B, hidden) state of the policy after the last step.
    """

    parameters: Tensor
    values: Tensor
    state: Tensor | None = None


class _ActorCritic(nn.Module):
    """An encoder applied to every step, a GRU over the steps, and linear actor and critic; float32 under autocast."""

    def __init__(self, encoder: nn.Module, hidden: int, actions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.actor = nn.Linear(hidden, actions)
        self.critic = nn.Linear(hidden, 1)

    def forward(self, maps: Tensor, before: Tensor | None = None) -> Decision:
        """Decision for the glance maps (B, S, D, h, w) of steps in order; a step depends on the steps before it.

        `before` (B, hidden) is `Decision.state` after earlier steps; None if there are none.
        """
        with full_precision(maps):
            code = self.encoder(widen(maps).flatten(0, 1)).unflatten(0, maps.shape[:2])
            memory, _ = self.gru(code, None if before is None else before[None].contiguous())
            return Decision(self.activate(self.actor(memory)), self.critic(memory).squeeze(-1), memory[:, -1])

    def activate(self, scores: Tensor) -> Tensor:
        raise NotImplementedError


class GridPolicy(_ActorCritic):
    """Chooses a cell of a grid x grid raster of patch locations for each step (ActivityNet, FCVID, Mini-Kinetics).

    Args:
        channels: number of channels D of the glance map.
        map_size: height and width (h, w) of the glance map.
        grid: number of patch locations along each side.
        hidden: width of encoder and GRU.
        convolution: whether the encoder is a 1x1 convolution to 32 channels and a linear layer; else it is two linear
            layers on the whole map.
    """

    def __init__(
        self, channels: int, map_size: tuple[int, int], *, grid: int = 7, hidden: int = 1024, convolution: bool = True
    ) -> None:
        if grid < 2:
            raise ValueError(f"a grid of {grid} x {grid} patch locations leaves no choice; grid must be at least 2")
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
        """Returns the most probable cells (B, S), the first of several with equal probability."""
        return decision.parameters.argmax(-1)

    def sample(self, decision: Decision, draws: Tensor) -> Tensor:
        """Samples cells (B, S) from uniform random numbers `draws` (B, S, 2), of which the first is used."""
        ladder = decision.parameters.detach().cumsum(-1)
        return (ladder < draws[..., :1] * ladder[..., -1:]).sum(-1).clamp(max=self.grid**2 - 1)

    def log_probability(self, decision: Decision, actions: Tensor) -> Tensor:
        return Categorical(probs=decision.parameters, validate_args=False).log_prob(actions)

    def entropy(self, decision: Decision) -> Tensor:
        return Categorical(probs=decision.parameters, validate_args=False).entropy()

    def where(self, actions: Tensor) -> Tensor:
        """Converts cells (...) to patch locations (..., 2), fractions (y, x) of the largest offset."""
        place = torch.stack((actions.div(self.grid, rounding_mode="floor"), actions % self.grid), -1)
        return place / (self.grid - 1)


class GaussianPolicy(_ActorCritic):
    """Chooses a continuous patch location for each step, from a Gaussian of fixed width (Something-Something).

    Args:
        channels: number of channels of the stacked glance maps of a step (frames times D).
        map_size: height and width (h, w) of the maps.
        hidden: width of encoder and GRU.
        deviation: standard deviation of both coordinates, as a fraction of the largest offset (frame side minus patch
            side).
        norm: whether BatchNorm follows the convolution and the linear layer (true in the published models).
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
        """Returns the most probable locations (B, S, 2), the means of the Gaussians."""
        return decision.parameters

    def sample(self, decision: Decision, draws: Tensor) -> Tensor:
        """Samples locations (B, S, 2) from uniform random numbers `draws` (B, S, 2), clipped to [0, 1]."""
        normal = math.sqrt(2) * torch.erfinv((2 * draws - 1).clamp(-0.999999, 0.999999))
        return (decision.parameters.detach() + self.deviation * normal).clamp(0, 1)

    def log_probability(self, decision: Decision, actions: Tensor) -> Tensor:
        """Returns log-probabilities (B, S) of clipped locations under the unclipped Gaussian, as in the repository."""
        distance = ((actions - decision.parameters) ** 2).sum(-1) / (2 * self.deviation**2)
        return -distance - 2 * math.log(self.deviation) - math.log(2 * math.pi)

    def entropy(self, decision: Decision) -> Tensor:
        """Returns the entropy (B, S) of the Gaussian, a constant without gradient, because its width is fixed."""
        value = 1 + math.log(2 * math.pi) + 2 * math.log(self.deviation)
        return torch.full_like(decision.values, value)

    def where(self, actions: Tensor) -> Tensor:
        """Returns the actions unchanged, which are patch locations (..., 2) already."""
        return actions
