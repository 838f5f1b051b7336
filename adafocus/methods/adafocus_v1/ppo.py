"""Proximal policy optimization (PPO) as AdaFocus V1 uses it: rewards, returns, and the loss of one update.

Source: arXiv 1707.06347; AdaFocus V1 (arXiv 2105.03245) section 3.3; blackfeather-wang/AdaFocus, class `PPO` in
models/ppo.py and class `PPO_Continuous` in models/ppo_continuous.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adafocus.methods.adafocus_v1.options import REWARDS


def rewards(kind: str, chosen: Tensor, baseline: Tensor | None) -> Tensor:
    """Computes rewards (B, S) from the probability of the true class after each of S steps.

    Args:
        kind: "random" or "padding": the probability minus that with a random (or an all-zero) patch in this step;
            "prev": the probability minus that after the previous step; "conf": the probability itself.
        chosen: (B, S) probabilities with the chosen patches.
        baseline: (B, S) probabilities with the random or all-zero patch in that step only; needed by "random" and
            "padding".
    """
    if kind in ("random", "padding") and baseline is not None:
        return chosen - baseline
    if kind == "prev":
        return torch.diff(chosen, dim=1, prepend=torch.zeros_like(chosen[:, :1]))
    if kind == "conf":
        return chosen
    raise ValueError(f"reward={kind!r} is unknown; choose one of {', '.join(REWARDS)}")


def returns(reward: Tensor, gamma: float) -> Tensor:
    """Returns the discounted sums (B, S) of the rewards from each step on, normalized over the whole batch."""
    total = torch.empty_like(reward)
    later = torch.zeros_like(reward[:, 0])
    for step in reversed(range(reward.shape[1])):
        later = reward[:, step] + gamma * later
        total[:, step] = later
    return (total - total.mean()) / (total.std() + 1e-5)


@dataclass
class PPOLoss:
    """Result of `ppo_loss`: `elements` (B, S), whose mean is minimized; `advantage` and `clipped` are for logging."""

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
    """Computes the PPO loss: the clipped surrogate objective, the critic's squared error and the entropy bonus.

    Args:
        log_probability, old: (B, S) log-probability of the sampled actions, by the present policy and by the policy
            that sampled them.
        values: (B, S) the critic's value estimates.
        gain: (B, S) normalized returns.
        entropy: (B, S) entropy of the present policy.
        clip: the ratio of probabilities is clipped to [1 - clip, 1 + clip].
        value_weight, entropy_weight: weights of the critic's error and of the entropy bonus. The critic's error is a
            mean over the batch that is added to every element, as in the repository.
    """
    advantage = gain - values.detach()
    ratio = (log_probability - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * advantage, bounded * advantage)
    elements = -surrogate + value_weight * ((values - gain) ** 2).mean() - entropy_weight * entropy
    return PPOLoss(elements, advantage, (ratio != bounded).float().mean())
