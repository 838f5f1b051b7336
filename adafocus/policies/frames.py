"""The policy of Uni-AdaFocus that says when: weights of the glance frames, and frames chosen by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen

_STEP = 0.25  # of the integral over log time; the rule's error is then exp(-2 pi (pi / 2) / step), about 1e-17
_SMALLEST = 1e-30  # weights below it count as this; the released code divides by zero there
_LAST = math.log(750.0 / _SMALLEST)  # by then every frame has arrived, to double precision


class FramePolicy(nn.Module):
    """Glance features of a clip to one weight a frame; the weights of a clip add up to 1.

    Two convolutions over 3 frames with BatchNorm and ReLU and one over 1, no biases; softmax of scores / temperature. It runs
    in float32 under autocast.

    Args:
        channels: D of the glance features.
        hidden: channels inside (64 in all published models).
        temperature: 1 in all published models.

    Source: Uni-AdaFocus (arXiv 2412.11228); the released `temporal_policy`, spec uni_adafocus 2.5.
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
        """(B, G, D) features in temporal order.

        Returns:
            weights (B, G), which learn, and the weights that frames are chosen by, (B, G), after the temperature.
        """
        with full_precision(features):
            scores = self.encoder(widen(features).transpose(1, 2))[:, 0]
            weights = scores.softmax(1)
            return weights, weights if self.temperature == 1.0 else (scores / self.temperature).softmax(1)


def choose_frames(weights: Tensor, candidates: int, count: int, draws: Tensor | None = None) -> Tensor:
    """Frames by the inverse of the cumulative weights: many where weights are large, in temporal order.

    Thresholds (k + 1/2) / K, or (k + u_k) / K in training, through the inverse of the piecewise linear cumulative weight, give
    positions in [0, 1); floor(position N) are frames; of equal ones the later move up, and none beyond its last free place.

    Args:
        weights: (B, G), no gradient passes.
        candidates: N.
        count: K, at most N.
        draws: (B, K) uniform numbers u in [0, 1); None for evaluation.

    Returns:
        (B, K) int64 strictly increasing indices in [0, N).

    Source: spec uni_adafocus 2.8. Their loop that resolves equal frames is a running maximum here; a threshold of exactly
    0, at which they stop, falls into the first bin.
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
    upper = (border[:, None] < threshold[..., None]).sum(-1).clamp(1, bins)  # the first border that is not below it
    left, right = border.gather(1, upper - 1), border.gather(1, upper)
    # In the order of the released code, whose rounding decides at the borders of frames.
    position = (upper / bins * (threshold - left) - (upper - 1) / bins * (threshold - right)) / (right - left)
    # A diverged policy gives NaN: choose anything, and let the NaN in the weights reach the loss, where it is reported.
    frame = (position * candidates).nan_to_num(0.0).floor().long().clamp(0, candidates - 1)
    # The largest so far of (frame - step), by a triangle: ONNX has no cumulative maximum.
    free = (frame - steps)[:, None].masked_fill(steps > steps[:, None], -candidates)
    frame = free.amax(-1) + steps
    return torch.minimum(frame, candidates - count + steps)


def inclusion_factors(weights: Tensor, count: int) -> Tensor:
    """c (B, G) such that sum_t w_t c_t x_t is the mean x of `count` frames drawn one after the other without replacement.

    w_t c_t count is the probability that frame t is among them. Drawing by weight without replacement is a race: frame t
    arrives after an exponential time of rate w_t, and the first `count` are drawn. So

        c_t = 1 / count * integral over s > 0 of exp(-w_t s) Pr(fewer than count of the others have arrived by s) ds,

    a smooth integral over log s (trapezoid rule, exact to rounding) of a Poisson binomial distribution. It costs
    O(G count^2) for any number of frames; enumerating the sets that may be drawn costs 2517 terms for 5 of 16 and more than
    any machine for 10 of 32. The released code draws 128 samples instead (`drawn_factors`). No gradient passes, as there.

    Source: spec uni_adafocus 2.9; the race is the exponential representation of the Plackett-Luce model.
    """
    with torch.no_grad():
        rate = weights.double().clamp(min=_SMALLEST)
        rate = rate / rate.sum(1, keepdim=True)
        node = torch.arange(-37.0, _LAST, _STEP, dtype=torch.float64, device=rate.device)
        stay = torch.exp(-rate[..., None] * node.exp())  # (B, G, nodes): has not arrived by then
        before, after = [_none_yet(stay, count)], [_none_yet(stay, count)]
        for frame in range(rate.shape[1] - 1):
            before.append(_with(before[-1], stay[:, frame]))
            after.append(_with(after[-1], stay[:, -1 - frame]))
        fewer = torch.stack(after[::-1]).cumsum(-1).flip(-1)  # at most count - 1 - a of the later ones
        others = (torch.stack(before) * fewer).sum(-1).transpose(0, 1)  # (B, G, nodes)
        integral = (stay * others * node.exp()).sum(-1) * _STEP
        return (integral / count).to(weights.dtype)


def _none_yet(stay: Tensor, count: int) -> Tensor:
    """(B, nodes, count): the distribution of how many of no frames have arrived."""
    none = stay.new_zeros(len(stay), stay.shape[-1], count)
    none[..., 0] = 1.0
    return none


def _with(arrived: Tensor, stay: Tensor) -> Tensor:
    """The distribution (B, nodes, count) with one more frame; what reaches `count` is dropped."""
    more = arrived * stay[..., None]
    more[..., 1:] += arrived[..., :-1] * (1 - stay)[..., None]
    return more


def drawn_factors(weights: Tensor, count: int, draws: Tensor) -> Tensor:
    """`inclusion_factors` estimated as in the released code: the mean over S draws of what remains after 0..count-1 frames.

    Args:
        weights: (B, G).
        draws: (B, S, G) uniform numbers in [0, 1): each row is one race.
    """
    with torch.no_grad():
        weights = widen(weights)[:, None].clamp(min=_SMALLEST)
        arrival = -torch.log1p(-draws.to(weights)) / weights
        place = arrival.argsort(-1).argsort(-1)
        left = weights[:, :, None] * (place[:, :, None] >= torch.arange(count, device=weights.device)[:, None])
        return ((left > 0) / left.sum(-1, keepdim=True)).mean((1, 2))


def frames_drawn(segments: int) -> int:
    """How many frames the temporal logits are the mean of: G // 3, as in the released code, and at least one."""
    return max(1, segments // 3)
