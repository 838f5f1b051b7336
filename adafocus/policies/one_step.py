"""The policy of OCSampler: all frames of a clip are chosen in one step, from the features of all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen


class OneStepPolicy(nn.Module):
    """Scores the frames of a clip from their concatenated features: two linear layers with a ReLU between.

    Args:
        channels: number of channels D of the glance features.
        segments: number of frames G.
        hidden: width between the layers.

    Source: OCSampler (arXiv 2201.04388), from which this differs: the paper's policy network is described by its task
    only in what we could read, so the layers are ours.
    """

    def __init__(self, channels: int, segments: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(segments * channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, segments)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, G, D) in temporal order to scores (B, G), logarithms of the weights of the frames."""
        with full_precision(features):
            return self.layers(widen(features))


def draw_frames(scores: Tensor, count: int, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Chooses frames, and returns them with the logarithm of the probability of this choice.

    In training `count` frames are drawn one after the other without replacement, with probabilities proportional to
    exp(score) among the frames that are left; adding Gumbel noise to the scores and taking the highest does just that.
    In evaluation the frames with the highest scores are taken.

    Args:
        scores: (B, G).
        count: number of frames F, at most G.
        draws: (B, G) uniform random numbers in [0, 1); None in evaluation.

    Returns:
        (B, F) int64 indices in temporal order, and (B,) log-probabilities with gradient.
    """
    noisy = scores.detach()
    if draws is not None:
        noisy = noisy - (-draws.to(scores).clamp(1e-9, 1 - 1e-6).log()).log()
    chosen = noisy.topk(count, 1).indices
    drawn = scores.gather(1, chosen)
    # Frame k is drawn among those that are not among the first k: their total weight is that of the frames that were
    # never drawn, plus that of the later draws.
    never = scores.scatter(1, chosen, -torch.inf).logsumexp(1, keepdim=True)
    left = torch.cat([drawn, never], 1).flip(1).logcumsumexp(1).flip(1)[:, :count]
    return chosen.sort(1).values, (drawn - left).sum(1)
