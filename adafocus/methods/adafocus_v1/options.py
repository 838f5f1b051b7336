"""The options of `method=adafocus_v1`: those of its policy and of PPO, which trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adafocus.core.domains import Amount, AtLeast, Count, OneOf, Probability, Weight
from adafocus.methods.options import Options

STAGES = ("glance", "focus", "1", "2", "3")
REWARDS = ("random", "padding", "prev", "conf")


@dataclass
class PlainPolicy(Options, section="policy", needs="method=adafocus_v1 on plain backbones"):
    grid: Annotated[int, AtLeast(2)] = 7  # number of patch locations along each side
    convolution: bool = True  # whether the policy's encoder has a 1x1 convolution


@dataclass
class TSMPolicy(Options, section="policy", needs="method=adafocus_v1 on a backbone with the temporal shift"):
    deviation: Amount = (
        0.25  # standard deviation of the sampled locations, as a fraction of frame side minus patch side
    )
    norm: bool = True  # whether the policy's encoder has BatchNorm


@dataclass
class PPO(Options, section="policy", needs="method=adafocus_v1 and its stage 2 (stage=2 or stage=all)"):
    # Reward of the policy; see `adafocus.methods.adafocus_v1.ppo.rewards`.
    reward: Annotated[str, OneOf(REWARDS)] = "random"
    gamma: Probability = 0.7  # discount factor of the rewards
    clip: Amount = 0.2  # the probability ratio is clipped to [1 - clip, 1 + clip]
    value_weight: Weight = 0.5  # weight of the critic's squared error
    entropy_weight: Weight = 0.01  # weight of the entropy bonus
    epochs: Count = 1  # PPO epochs on one batch of videos
    minibatches: Count = 1  # parts that each PPO epoch splits the batch into
