"""Recognition of video streams, frame by frame: the features cached from the previous frame are passed in and returned.

Source: the online demo of TSM (arXiv 1811.08383); mit-han-lab/temporal-shift-module, online_demo/main.py and
online_demo/mobilenet_v2_tsm.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adafocus.backbones.shift import Shifted
from adafocus.core.output import given
from adafocus.methods.recognizer.model import Recognizer

Caches = tuple[Tensor, ...]


@dataclass
class StreamOutput:
    """Output for one frame of each of B streams: `logits` (B, K), and `caches` to pass in with the next frame."""

    logits: Tensor
    caches: Caches


class OnlineRecognizer(nn.Module):
    """Runs a `Recognizer` with the online shift frame by frame. It has no state: caches are passed in and returned.

    Each shifted layer has one cache (B, C // div, h, w): the first C // div channels of its input at the previous
    frame, with `div` as in `backbones.shift`. A network that removes the background has two more: the mean of the
    frames so far (B, 3, S, S), and their number (B, 1, 1, 1). All caches start as zeros. The logits equal the per-frame
    logits of the `Recognizer` on the whole clip.

    Args:
        model: the trained recognizer; its modules are used, not copied.

    Raises:
        ValueError: the model needs future frames; the message names the module and what to train instead.
    """

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        if (reason := model.why_no_stream()) is not None:
            raise ValueError(reason)
        self.model = model
        self.shifts = [module for module in model.modules() if isinstance(module, Shifted)]

    @torch.no_grad()
    def start(self, streams: int, size: int) -> Caches:
        """Returns caches of zeros for `streams` streams of square frames of `size` pixels."""
        first = next(self.model.parameters())
        frames = torch.zeros(streams, 3, size, size, device=first.device, dtype=first.dtype)
        caches = (frames.new_empty(0),) * len(self.shifts)
        if self.model.remove_background:
            caches += (frames, frames.new_zeros(streams, 1, 1, 1))
        return tuple(torch.zeros_like(cache) for cache in self(frames, caches).caches)

    def forward(self, frames: Tensor, caches: Caches) -> StreamOutput:
        """Processes one normalized frame of each stream, (B, 3, S, S)."""
        wanted = len(self.shifts) + 2 * self.model.remove_background
        if len(caches) != wanted:
            raise ValueError(f"got {len(caches)} caches instead of {wanted}; take the first ones from start()")
        background: Caches = ()
        if self.model.remove_background:
            mean, count = caches[-2:]
            count = count + 1
            mean = mean + (frames - mean) / count
            frames, background = frames - mean, (mean, count)
        try:
            for shift, cache in zip(self.shifts, caches, strict=False):
                shift.past = cache
            logits = self.model.frame_logits(frames)
            return StreamOutput(logits, (*(given(shift.past) for shift in self.shifts), *background))
        finally:
            for shift in self.shifts:
                shift.past = None


def restart(caches: Caches, streams: Sequence[int]) -> Caches:
    """Returns caches that are zero for the given streams, which start a new video, and unchanged for the others."""
    kept = torch.ones(len(caches[0]), dtype=torch.bool, device=caches[0].device)
    kept[list(streams)] = False
    return tuple(cache * kept[:, None, None, None].to(cache.dtype) for cache in caches)


class Smoothing:
    """Smooths per-frame predictions of a stream to a displayed label that does not flicker, as the TSM demo does.

    For each frame it takes the class with the highest logits summed over the last `window` frames. An ignored class is
    replaced by the label displayed last. A new label is displayed only if the last two displayed labels were equal.

    Args:
        window: number of frames whose logits are summed.
        ignored: classes that are never displayed.
        replaced: class -> class that is displayed in its place.
        rest: label that counts as displayed before the first frame; None: the first prediction. (`process_output` in
            online_demo/main.py starts with one label but reads two, which fails; the FPGA port starts with two.)
    """

    def __init__(
        self,
        window: int = 12,
        *,
        ignored: Collection[int] = (),
        replaced: Mapping[int, int] | None = None,
        rest: int | None = None,
    ) -> None:
        self.scores: deque[Tensor] = deque(maxlen=window)
        self.ignored, self.replaced = frozenset(ignored), dict(replaced or {})
        self.shown: deque[int] = deque([] if rest is None else [rest, rest], maxlen=2)

    def __call__(self, logits: Tensor) -> int:
        """Takes the logits (K,) of the next frame and returns the label to display."""
        self.scores.append(logits.detach().float().cpu())
        return self.show(int(torch.stack(tuple(self.scores)).sum(0).argmax()))

    def mean(self) -> Tensor:
        """Returns the mean logits (K,) of the frames in the window, from which `__call__` makes the label."""
        return torch.stack(tuple(self.scores)).mean(0)

    def show(self, label: int) -> int:
        """Returns the label to display if `label` has the highest summed logits."""
        if not self.shown:
            self.shown.extend([self.replaced.get(label, label)] * 2)
        if label in self.ignored:
            label = self.shown[-1]
        label = self.replaced.get(label, label)
        if label != self.shown[-1] and self.shown[-1] != self.shown[-2]:
            label = self.shown[-1]
        self.shown.append(label)
        return label
