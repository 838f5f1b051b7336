"""The temporal policy of Uni-AdaFocus: weights of the glance frames, and the choice of focus frames by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen

#: Step of the numerical integral over log time in `inclusion_factors`; its error is exp(-2 pi (pi / 2) / step), about
#: 1e-17.
_STEP = 0.25
#: Smaller weights are raised to this value; `MCSampleFeature` of the repository divides by zero there.
_SMALLEST = 1e-30
#: Upper end of that integral: the log time at which every frame has arrived, to double precision.
_LAST = math.log(750.0 / _SMALLEST)


class FramePolicy(nn.Module):
    """The temporal policy: one weight per glance frame from the glance features; the weights of a clip add up to 1.

    Two temporal convolutions of kernel 3 with BatchNorm and ReLU and one of kernel 1, without biases, then a softmax
    over the frames. It runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance features.
        hidden: number of channels between the convolutions (64 in all published models).
        temperature: divides the scores before the softmax whose weights choose the frames (1 in all published models).

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, `TemporalPolicy` in models/uni_adafocus.py.
    """

    def __init__(self, channels: int, hidden: int = 64, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, 1, 1, bias=False),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the weights of glance frames from their features (B, G, D) in temporal order.

        Returns:
            the weights (B, G) that the temporal loss reads, and those (B, G) with the temperature, which choose frames.
        """
        with full_precision(features):
            scores = self.encoder(widen(features).transpose(1, 2))[:, 0]
            weights = scores.softmax(1)
            return weights, weights if self.temperature == 1.0 else (scores / self.temperature).softmax(1)


def choose_frames(weights: Tensor, candidates: int, count: int, draws: Tensor | None = None) -> Tensor:
    """Chooses F of N candidate frames by inverting the cumulative weights: densely where the weights are large.

    The thresholds (k + 1/2) / F, or (k + u_k) / F in training, for k = 0..F-1, are mapped through the inverse of the
    piecewise linear cumulative weight to positions in [0, 1), and frame k is floor(position * N). If several would be
    equal, the later ones move to the next free frame, as far as enough frames remain.

    Args:
        weights: (B, G) weights of the glance frames; no gradient flows into them.
        candidates: number of candidates N.
        count: number of chosen frames F, at most N.
        draws: (B, F) uniform random numbers u in [0, 1); None in evaluation.

    Returns:
        (B, F) int64 strictly increasing indices in [0, N).

    Source: LeapLabTHU/Uni-AdaFocus, `policy_sample_indices` in models/uni_adafocus.py. Its loop over equal frames is a
    running maximum here, and a threshold of exactly 0, at which it fails, belongs to the first bin.
    """
    if not 0 < count <= candidates:
        raise ValueError(f"cannot choose {count} of {candidates} candidate frames")
    weights = widen(weights.detach())
    bins = weights.shape[1]
    border = torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(1)], 1)
    border[:, -1] = 1.0
    steps = torch.arange(count, device=weights.device)
    threshold = ((steps + (0.5 if draws is None else draws.to(weights.dtype))) / count).to(weights.dtype)
    threshold = threshold.expand(weights.shape[0], -1)
    upper = (border[:, None] < threshold[..., None]).sum(-1).clamp(1, bins)  # index of the first border >= threshold
    left, right = border.gather(1, upper - 1), border.gather(1, upper)
    # The same order of operations as the repository's `cal_x`, because rounding decides at the borders between frames.
    position = (upper / bins * (threshold - left) - (upper - 1) / bins * (threshold - right)) / (right - left)
    # A diverged policy gives NaN: frame 0 is chosen, and the NaN in the weights reaches the loss, where it is reported.
    frame = (position * candidates).nan_to_num(0.0).floor().long().clamp(0, candidates - 1)
    # The cumulative maximum of (frame - step) over steps, by a triangular mask because ONNX has no cumulative maximum.
    free = (frame - steps)[:, None].masked_fill(steps > steps[:, None], -candidates)
    frame = free.amax(-1) + steps
    return torch.minimum(frame, candidates - count + steps)


def inclusion_factors(weights: Tensor, count: int) -> Tensor:
    """Computes factors c (B, G) by which sum_t w_t c_t x_t is the expected mean of x over frames sampled by w.

    `count` frames are sampled without replacement.
    w_t * c_t * count is the probability that frame t is among the sampled frames. Sampling by weight without
    replacement is equivalent to a race in which frame t arrives after an exponential time of rate w_t and the first
    `count` are taken. So

        c_t = 1 / count * integral over s > 0 of exp(-w_t s) Pr(fewer than count of the others have arrived by s) ds,

    an integral over log s (trapezoid rule, exact to rounding) of a Poisson binomial distribution, in O(G count^2) time.
    Enumerating all possible sets needs 2517 terms for 5 of 16 frames and is infeasible for 10 of 32. No gradient
    passes.

    Args:
        weights: (B, G) weights w of the frames.
        count: number of sampled frames.

    Source: the race is the exponential representation of the Plackett-Luce model. `MCSampleFeature` in
    models/uni_adafocus.py of LeapLabTHU/Uni-AdaFocus estimates the same mean with 128 Monte Carlo samples;
    `drawn_factors` does that here.
    """
    with torch.no_grad():
        rate = weights.double().clamp(min=_SMALLEST)
        rate = rate / rate.sum(1, keepdim=True)
        node = torch.arange(-37.0, _LAST, _STEP, dtype=torch.float64, device=rate.device)
        stay = torch.exp(-rate[..., None] * node.exp())  # (B, G, nodes): probability of not having arrived yet
        before, after = [_none_yet(stay, count)], [_none_yet(stay, count)]
        for frame in range(rate.shape[1] - 1):
            before.append(_with(before[-1], stay[:, frame]))
            after.append(_with(after[-1], stay[:, -1 - frame]))
        # If a of the frames before t have arrived, at most count - 1 - a of those after t may have.
        fewer = torch.stack(after[::-1]).cumsum(-1).flip(-1)
        others = (torch.stack(before) * fewer).sum(-1).transpose(0, 1)  # (B, G, nodes)
        integral = (stay * others * node.exp()).sum(-1) * _STEP
        return (integral / count).to(weights.dtype)


def _none_yet(stay: Tensor, count: int) -> Tensor:
    """Returns the distribution (B, nodes, count) of the number of arrivals among no frames: 0 with probability 1."""
    none = stay.new_zeros(len(stay), stay.shape[-1], count)
    none[..., 0] = 1.0
    return none


def _with(arrived: Tensor, stay: Tensor) -> Tensor:
    """Adds a frame to the distribution (B, nodes, count) of the number of arrivals; `count` and above are dropped."""
    more = arrived * stay[..., None]
    more[..., 1:] += arrived[..., :-1] * (1 - stay)[..., None]
    return more


def drawn_factors(weights: Tensor, count: int, draws: Tensor) -> Tensor:
    """Estimates `inclusion_factors` from S Monte Carlo samples, as `MCSampleFeature` of the repository does.

    Args:
        weights: (B, G) weights of the frames.
        count: number of sampled frames.
        draws: (B, S, G) uniform random numbers in [0, 1); S is the number of samples.
    """
    with torch.no_grad():
        weights = widen(weights)[:, None].clamp(min=_SMALLEST)
        arrival = -torch.log1p(-draws.to(weights)) / weights
        place = arrival.argsort(-1).argsort(-1)
        left = weights[:, :, None] * (place[:, :, None] >= torch.arange(count, device=weights.device)[:, None])
        return ((left > 0) / left.sum(-1, keepdim=True)).mean((1, 2))


def frames_drawn(segments: int) -> int:
    """Returns the number of frames that the temporal logits average: G // 3 as in the repository, at least 1."""
    return max(1, segments // 3)
