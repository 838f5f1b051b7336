"""Recognition of streams: one frame in, scores out, with what the frame before left behind as explicit state.

Source: the online demo of TSM (arXiv 1811.08383), released file online_demo/main.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adafocus.backbones.adaptive import TemporalAdaptive
from adafocus.backbones.non_local import NonLocal
from adafocus.backbones.shift import Shifted, TemporalPool
from adafocus.methods.recognizer.model import Recognizer

Caches = tuple[Tensor, ...]


@dataclass
class StreamOutput:
    """Scores (B, K) of one frame of each stream, and the caches for the next frame."""

    logits: Tensor
    caches: Caches


class OnlineRecognizer(nn.Module):
    """A recognizer with `shift=online`, frame by frame. It keeps no state: caches come in and go out.

    Each shifted layer has one cache: the first channels of its input at the frame before, (B, C // div, h, w). A network
    that removes the background has two more: the mean of the frames so far (B, 3, S, S), and their number (B, 1, 1, 1).
    A stream starts from zeros. Scores of a frame equal those that the clip form gives that frame.

    Args:
        model: trained on clips; its modules are used, not copied.

    Raises:
        ValueError: it looks into the future; the line says what of it does, and what to train instead.
    """

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        if (reason := why_no_stream(model)) is not None:
            raise ValueError(reason)
        self.model = model
        self.shifts = [module for module in model.modules() if isinstance(module, Shifted)]

    @torch.no_grad()
    def start(self, streams: int, size: int) -> Caches:
        """Zero caches for so many streams of square frames of `size` pixels."""
        first = next(self.model.parameters())
        frames = torch.zeros(streams, 3, size, size, device=first.device, dtype=first.dtype)
        caches = (frames.new_empty(0),) * len(self.shifts)
        if self.model.remove_background:
            caches += (frames, frames.new_zeros(streams, 1, 1, 1))
        return tuple(torch.zeros_like(cache) for cache in self(frames, caches).caches)

    def forward(self, frames: Tensor, caches: Caches) -> StreamOutput:
        """(B, 3, S, S), normalized, one frame of each stream."""
        wanted = len(self.shifts) + 2 * self.model.remove_background
        if len(caches) != wanted:
            raise ValueError(f"{len(caches)} caches instead of {wanted}; begin with start()")
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
            return StreamOutput(logits, (*(shift.past for shift in self.shifts), *background))
        finally:
            for shift in self.shifts:
                shift.past = None


def why_no_stream(model: nn.Module) -> str | None:
    """Why a network cannot run frame by frame, and what to train instead, in one line; None if it can."""
    if not isinstance(model, Recognizer):
        return (
            f"a {type(model).__name__} chooses from whole clips and cannot run frame by frame; "
            f"train method=recognizer with backbone.shift=online for streams"
        )
    ahead = {TemporalAdaptive: "adaptive", NonLocal: "non_local", TemporalPool: "temporal_pool"}
    for module in model.modules():
        if type(module) in ahead:
            return (
                f"this model cannot run frame by frame: backbone.{ahead[type(module)]} looks at frames that have not come "
                f"yet; train with backbone.{ahead[type(module)]}=false and backbone.shift=online"
            )
    shifts = [module for module in model.modules() if isinstance(module, Shifted)]
    if not shifts or not all(shift.online for shift in shifts):
        what = "its shift takes channels from the frame after" if shifts else "nothing in it joins frames"
        return f"this model cannot run frame by frame: {what}; train with backbone.shift=online"
    if model.remove_background and not model.causal:
        return (
            "this model cannot run frame by frame: its background is the mean of the whole clip; "
            "build the Recognizer with causal=True and train that"
        )
    return None


def restart(caches: Caches, streams: Sequence[int]) -> Caches:
    """Caches in which these streams begin anew (a new video, a cut), and the others go on."""
    kept = torch.ones(len(caches[0]), dtype=torch.bool, device=caches[0].device)
    kept[list(streams)] = False
    return tuple(cache * kept[:, None, None, None].to(cache.dtype) for cache in caches)


class Smoothing:
    """The demo's way from scores to a label that does not flicker.

    Per frame: the best class of the summed scores of the last frames; an ignored class gives way to the label shown last,
    a replaced one to its replacement; and a new label is taken only if the last two shown were the same.

    Args:
        window: frames whose raw scores are summed.
        ignored: classes that are never shown.
        replaced: classes that are shown as another.
        rest: label that counts as shown before the first frame; None: the first one found. (The released demo starts with
            one such label and reads two, which fails; its FPGA port starts with two.)
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
        """The label to show after a frame with these scores (K,)."""
        self.scores.append(logits.detach().float().cpu())
        return self.show(int(torch.stack(tuple(self.scores)).sum(0).argmax()))

    def mean(self) -> Tensor:
        """(K,) mean of the scores in the window, of which `__call__` takes the best."""
        return torch.stack(tuple(self.scores)).mean(0)

    def show(self, label: int) -> int:
        """The label to show when the summed scores say `label`."""
        if not self.shown:
            self.shown.extend([self.replaced.get(label, label)] * 2)
        if label in self.ignored:
            label = self.shown[-1]
        label = self.replaced.get(label, label)
        if label != self.shown[-1] and self.shown[-1] != self.shown[-2]:
            label = self.shown[-1]
        self.shown.append(label)
        return label
