"""Proximal policy optimization as AdaFocus V1 uses it: returns, and the loss of one update.

Source: arXiv 1707.06347; AdaFocus V1 (arXiv 2105.03245) section 3.3; spec adafocus_v1 section 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adafocus.core.choices import REWARDS


def rewards(kind: str, chosen: Tensor, baseline: Tensor | None) -> Tensor:
    """(B, S) rewards from the probability of the true class after each step.

    Args:
        kind: "random" or "padding": how much better than with a random (or an empty) patch in that step; "prev": how much
            better than after the step before; "conf": the probability itself.
        chosen, baseline: (B, S) probabilities with the chosen patches, and with the other one in that step only.
    """
    if kind in ("random", "padding") and baseline is not None:
        return chosen - baseline
    if kind == "prev":
        return torch.diff(chosen, dim=1, prepend=torch.zeros_like(chosen[:, :1]))
    if kind == "conf":
        return chosen
    raise ValueError(f"reward={kind!r} is unknown; choose one of {', '.join(REWARDS)}")


def returns(reward: Tensor, gamma: float) -> Tensor:
    """(B, S) discounted rewards of the steps from each on, normalized over the whole batch."""
    total = torch.empty_like(reward)
    later = torch.zeros_like(reward[:, 0])
    for step in reversed(range(reward.shape[1])):
        later = reward[:, step] + gamma * later
        total[:, step] = later
    return (total - total.mean()) / (total.std() + 1e-5)


@dataclass
class PPOLoss:
    """`elements` (B, S), whose mean is minimized, and figures worth logging."""

    elements: Tensor
    advantage: Tensor
    clipped: Tensor


def ppo_loss(
    log_probability: Tensor,
    old: Tensor,
    values: Tensor,
    gain: Tensor,
    entropy: Tensor,
    *,
    clip: float = 0.2,
    value_weight: float = 0.5,
    entropy_weight: float = 0.01,
) -> PPOLoss:
    """The clipped surrogate, the critic's squared error and the entropy bonus.

    Args:
        log_probability, old: (B, S) of the actions taken, now and when they were drawn.
        values, entropy: (B, S) of the policy now.
        gain: (B, S) normalized returns.
        clip: how far the ratio of probabilities may go from 1.
        value_weight, entropy_weight: of the other two terms. The critic's term is a mean, added to every element, as released.
    """
    advantage = gain - values.detach()
    ratio = (log_probability - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * advantage, bounded * advantage)
    elements = -surrogate + value_weight * ((values - gain) ** 2).mean() - entropy_weight * entropy
    return PPOLoss(elements, advantage, (ratio != bounded).float().mean())
