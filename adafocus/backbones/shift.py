"""The temporal shift of TSM: moves part of the channels by one frame. It has no parameters and no multiply-adds.

Source: TSM (arXiv 1811.08383); mit-han-lab/temporal-shift-module, `TemporalShift` and `TemporalPool` in
ops/temporal_shift.py, and online_demo/mobilenet_v2_tsm.py for streams.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def temporal_shift(x: Tensor, segments: int, fold: int, *, online: bool = False) -> Tensor:
    """Moves `fold` channels by one frame within each clip, with zeros at the ends of the clip.

    Bidirectional: channels [0, fold) of frame t come from frame t + 1, channels [fold, 2 fold) from frame t - 1.
    Online: channels [0, fold) come from frame t - 1, and nothing from the future.

    Every value is read and written once, forward and backward. (`TemporalShift.shift` of the repository first fills a
    copy with zeros, and the backward of its slice assignments copies the whole gradient three times.)

    Args:
        x: (B * T, C, H, W) feature maps of B clips.
        segments: number of frames T of a clip.
        fold: number of channels that move in each direction.
        online: whether to shift from the past only.

    Raises:
        ValueError: the batch size is not a multiple of T, or more channels would move than there are.
    """
    if x.shape[0] % segments:
        raise ValueError(f"{x.shape[0]} frames are not a whole number of clips of {segments} frames")
    if fold * (1 if online else 2) > x.shape[1]:
        raise ValueError(f"a fold of {fold} channels is too large for {x.shape[1]} channels; raise shift_div")
    return _Shift.apply(x, segments, fold, online)


def _moved(x: Tensor, segments: int, fold: int, online: bool, back: bool) -> Tensor:
    """Computes the shift, or with `back` its transpose for the backward pass, which moves channels the other way."""
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
        segments, fold, online = ctx.options
        return _moved(gradient, segments, fold, online, back=True), None, None, None


class Shifted(nn.Module):
    """Applies the temporal shift to the input of another module.

    For streams, `methods.recognizer.online` sets `past` for the duration of one call. The input is then one frame of
    each of B streams, (B, C, H, W): its first channels are replaced by `past`, the same channels of the previous frame,
    and `past` is set to those of the present frame.

    Args:
        net: the module after the shift.
        segments: number of frames T of a clip.
        div: C // div channels move in each direction.
        online: whether to shift from the past only.
    """

    past: Tensor | None = None

    def __init__(self, net: nn.Module, segments: int, div: int = 8, *, online: bool = False) -> None:
        super().__init__()
        if div < (1 if online else 2):
            raise ValueError(f"shift_div={div} would move more channels than there are")
        self.net, self.segments, self.div, self.online = net, segments, div, online

    def forward(self, x: Tensor) -> Tensor:
        """Applies the shift and then `net` to feature maps (B * T, C, H, W), or (B, C, H, W) in a stream."""
        fold = x.shape[1] // self.div
        if self.past is None:
            return self.net(temporal_shift(x, self.segments, fold, online=self.online))
        past = self.past if self.past.numel() else torch.zeros_like(x[:, :fold])
        self.past = x[:, :fold].clone()  # a view would keep the whole map in memory
        return self.net(torch.cat((past, x[:, fold:]), 1))

    def extra_repr(self) -> str:
        return f"segments={self.segments}, div={self.div}, {'online' if self.online else 'bidirectional'}"


class TemporalPool(nn.Module):
    """Halves the number of frames by max pooling over time (window 3, stride 2, padding 1), then applies `net`.

    Source: `TemporalPool` in ops/temporal_shift.py of mit-han-lab/temporal-shift-module.
    """

    def __init__(self, net: nn.Module, segments: int) -> None:
        super().__init__()
        if segments % 2:
            raise ValueError(f"temporal_pool halves the frames: {segments} segments must be even")
        self.net, self.segments = net, segments

    def forward(self, x: Tensor) -> Tensor:
        """Pools feature maps (B * T, C, H, W) to (B * T / 2, C, H, W) and applies `net`."""
        clips = x.unflatten(0, (-1, self.segments))
        pooled = torch.maximum(clips[:, ::2], clips[:, 1::2])
        # Window t covers frames 2t - 1, 2t and 2t + 1; window 0 has no frame -1.
        pooled = torch.cat((pooled[:, :1], torch.maximum(pooled[:, 1:], clips[:, 1:-1:2])), 1)
        return self.net(pooled.flatten(0, 1))
