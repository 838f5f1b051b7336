"""The temporal shift: part of the channels moves by one frame. No parameters, no multiply-adds.

Source: TSM (arXiv 1811.08383); spec tsm sections 2.2, 7.4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def temporal_shift(x: Tensor, segments: int, fold: int, *, online: bool = False) -> Tensor:
    """Moves `fold` channels by a frame, within each clip; zeros come in at the ends.

    Bidirectional: channels [0, fold) of frame t come from frame t + 1, channels [fold, 2 fold) from frame t - 1.
    Online: channels [0, fold) come from frame t - 1, and nothing from the future.

    Every value is read and written once, forward and backward. (The released code fills a copy with zeros first, and its
    slice assignments copy the whole gradient three times.)

    Args:
        x: (B * T, C, H, W), frames of a clip in a row.
        segments: T.
        fold: channels that move in each direction.

    Raises:
        ValueError: the batch holds no whole number of clips, or more channels would move than there are.
    """
    if x.shape[0] % segments:
        raise ValueError(f"{x.shape[0]} frames are no whole number of clips of {segments}")
    if fold * (1 if online else 2) > x.shape[1]:
        raise ValueError(f"a fold of {fold} channels is too large for {x.shape[1]} channels; raise shift_div")
    return _Shift.apply(x, segments, fold, online)


def _moved(x: Tensor, segments: int, fold: int, online: bool, back: bool) -> Tensor:
    """The shift, or its transpose (`back`): the same move in the other direction."""
    y = torch.empty_like(x)
    source, target = x.unflatten(0, (-1, segments)), y.unflatten(0, (-1, segments))
    kept = fold if online else 2 * fold
    target[:, :, kept:] = source[:, :, kept:]
    for part, from_future in ((slice(0, fold), not online), (slice(fold, kept), False)):
        if from_future != back:
            target[:, :-1, part] = source[:, 1:, part]
            target[:, -1:, part] = 0
        else:
            target[:, 1:, part] = source[:, :-1, part]
            target[:, :1, part] = 0
    return y


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, segments: int, fold: int, online: bool) -> Tensor:
        ctx.options = segments, fold, online
        return _moved(x, segments, fold, online, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _moved(gradient, *ctx.options, back=True), None, None, None


class Shifted(nn.Module):
    """A module that sees shifted frames.

    A stream of single frames needs what the frame before left behind: while `past` is set, frames are one of each
    stream instead of clips, the first channels come from `past`, and `past` becomes what the next frame needs
    (`methods.recognizer.online` sets it for one call; nothing is kept between calls).

    Args:
        net: what follows the shift.
        segments: T, frames of a clip.
        div: one in `div` channels moves in each direction (rounded down).
        online: only from the past.
    """

    past: Tensor | None = None

    def __init__(self, net: nn.Module, segments: int, div: int = 8, *, online: bool = False) -> None:
        super().__init__()
        if div < (1 if online else 2):
            raise ValueError(f"shift_div={div} would move more channels than there are")
        self.net, self.segments, self.div, self.online = net, segments, div, online

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) to what `net` makes of it; (B, C, H, W) in a stream."""
        fold = x.shape[1] // self.div
        if self.past is None:
            return self.net(temporal_shift(x, self.segments, fold, online=self.online))
        past = self.past if self.past.numel() else torch.zeros_like(x[:, :fold])
        self.past = x[:, :fold].clone()  # a slice would keep the whole map alive
        return self.net(torch.cat((past, x[:, fold:]), 1))

    def extra_repr(self) -> str:
        return f"segments={self.segments}, div={self.div}, {'online' if self.online else 'bidirectional'}"


class TemporalPool(nn.Module):
    """Halves the frames by a maximum over 3 of them, then `net`.

    Source: spec tsm section 2.6 (window 3, stride 2, padding 1 that never wins).
    """

    def __init__(self, net: nn.Module, segments: int) -> None:
        super().__init__()
        if segments % 2:
            raise ValueError(f"temporal_pool halves the frames: {segments} segments must be even")
        self.net, self.segments = net, segments

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) to what `net` makes of (B * T / 2, C, H, W)."""
        clips = x.unflatten(0, (-1, self.segments))
        pooled = torch.maximum(clips[:, ::2], clips[:, 1::2])
        # Frame 2t - 1 also belongs to window t; window 0 has none before it.
        pooled = torch.cat((pooled[:, :1], torch.maximum(pooled[:, 1:], clips[:, 1:-1:2])), 1)
        return self.net(pooled.flatten(0, 1))
