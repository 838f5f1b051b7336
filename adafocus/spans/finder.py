"""`Finder`: spans in a video or stream with the network of a `Predictor`.

Overlapping windows go through the video. The glance network answers each of them, and the focus network looks only into
those in which the glance is not sure enough. A moment's probabilities are a weighted mean over the windows that show
it; a window counts more for what is in its middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus import build
from adafocus.core.errors import UserError
from adafocus.core.output import GlanceOutput, Overrides
from adafocus.data.stream import Stream
from adafocus.methods.network import AdaptiveNetwork
from adafocus.predict import Predictor
from adafocus.spans import FOCUS_BELOW, OVERLAP, WINDOW
from adafocus.spans.timeline import Rules, Span, Timeline
from adafocus.spans.windows import Grid, Reader, Windows


@dataclass
class Found:
    """What was done to find the spans of a video; it grows while `Finder.find` runs.

    Attributes:
        spans: number of spans.
        seconds: how much of the video has been looked at.
        duration: its length as its container says; None if that is not known.
        frames: number of decoded frames.
        windows, focused: number of windows, and of those that the focus network looked into.
        glances: number of frames that the glance network saw; a frame counts again for every window that needs it anew.
        cost: multiply-adds.
        dense_cost: those of the whole network in each of the windows.
        held: largest number of frames that were in memory at a time.
    """

    spans: int = 0
    seconds: float = 0.0
    duration: float | None = None
    frames: int = 0
    windows: int = 0
    focused: int = 0
    glances: int = 0
    cost: int = 0
    dense_cost: int = 0
    held: int = 0


@dataclass
class Finder:
    """Finds spans.

    Args:
        predictor: the network.
        rules: how probabilities become spans.
        background: classes that are no spans.
        window: length of a window in seconds, about that of the clips that the network was trained on.
        overlap: how many windows show each moment.
        focus_below: a window is focused on if the glance's highest probability is below this value; 0: never, above 1:
            always. Networks whose glance has no answer of its own focus on all windows.

    Attributes:
        answers: whether the glance network answers windows.
        shares: whether windows share the glance network's feature maps of their frames. They cannot where temporal
            modules in the glance network mix the frames of a window, or the mean of its frames is subtracted.

    Raises:
        UserError: the network cannot take windows of frames.
    """

    predictor: Predictor
    rules: Rules = field(default_factory=Rules)
    background: tuple[str, ...] = ()
    window: float = WINDOW
    overlap: int = OVERLAP
    focus_below: float = FOCUS_BELOW

    def __post_init__(self) -> None:
        settings, self.stage = self.predictor.settings, self.predictor.stage
        if settings.dataset.modality != "rgb":
            raise UserError("this model needs optical flow, which video files do not contain")
        self.network: Any = self.predictor.model
        self.glances = build.tested_plan(settings).glance
        self.view = replace(build.views(settings, self.predictor.classes)[1], crops=1, segments=self.glances)
        self.answers = isinstance(self.network, AdaptiveNetwork) and self.network.answers_at_glance
        self.shares = self.answers and self.network.shares_maps
        cost = build.cost(settings, len(self.predictor.classes))
        self.whole_cost = self.stage.costs(cost)[self.stage.variants[0]]
        if self.answers:
            self.backbone_cost = cost.of("glance")
            answered = self.network.glance_cost(cost)
            self.answer_cost = answered - self.backbone_cost
            # The prediction of a network with an exit after the glance goes on from there; others have a head for it.
            self.focus_cost = self.whole_cost - self.backbone_cost
            if getattr(self.network, "glance_exit", False):
                self.focus_cost = self.network.exit_costs(cost)[-1] - answered
        Timeline(self.predictor.classes, self.rules, self.background)  # names a class that does not exist

    @torch.no_grad()
    def find(
        self, source: str | Path, found: Found | None = None, progress: Callable[[Found], None] | None = None
    ) -> Iterator[Span]:
        """Yields the spans of a video file, or of the camera with this index, as soon as each is complete.

        Args:
            source: the file or camera.
            found: is filled with what is done.
            progress: is called with it after every few windows.

        Raises:
            VideoError: the video cannot be opened, or is damaged; the spans before the damage have been yielded.
        """
        found = Found() if found is None else found
        with Stream(source) as stream:
            found.duration = stream.duration
            grid = Grid.of(self.view, self.glances, stream.rate, self.window, self.overlap)
            timeline = Timeline(self.predictor.classes, self.rules, self.background)
            reader, mean, maps = Reader(stream, grid, self.view), _Mean(grid.overlap), dict[int, Tensor]()
            self.predictor.model.eval()
            try:
                for windows in reader:
                    for probabilities in self._answer(windows, maps, found):
                        mean.add(probabilities)
                    for start, end in zip(windows.times, windows.times[1:], strict=False):
                        yield from self._counted(timeline.add(start, end, mean.pop()), found)
                    found.frames, found.seconds, found.held = reader.count, reader.seconds, reader.held
                    if progress is not None:
                        progress(found)
            finally:  # also at damage: what is known by then are spans
                yield from self._counted(timeline.finish(), found)

    @staticmethod
    def _counted(spans: list[Span], found: Found) -> list[Span]:
        found.spans += len(spans)
        return spans

    def _answer(self, windows: Windows, maps: dict[int, Tensor], found: Found) -> np.ndarray:
        """Probabilities (B, K) of windows."""
        found.windows += len(windows)
        found.dense_cost += len(windows) * self.whole_cost
        if not self.answers:
            found.focused += len(windows)
            found.cost += len(windows) * self.whole_cost
            return self._whole(windows).softmax(1).cpu().numpy()
        numbers = self.network.glance_frames(windows.numbers, Overrides())
        glance = self._glance(windows, numbers, maps, found)
        logits = self.network.glance_answer(glance).float()
        unsure = logits.softmax(1).amax(1) < self.focus_below
        found.cost += len(windows) * self.answer_cost
        if unsure.any():
            rows = unsure.cpu()
            logits[unsure] = self._focus(windows, rows, numbers, replace(glance, aux_logits=None).rows(unsure))
            found.focused += int(rows.sum())
            found.cost += int(rows.sum()) * self.focus_cost
        return logits.softmax(1).cpu().numpy()

    def _whole(self, windows: Windows) -> Tensor:
        """Logits (B, K) of the whole network, for networks without an answer at the glance."""
        frames = self._normalized(windows, windows.numbers)
        if isinstance(self.network, AdaptiveNetwork):
            return self.network(frames, auxiliary=False).logits.float()
        return self.network(frames).logits.float()

    def _glance(self, windows: Windows, numbers: Tensor, maps: dict[int, Tensor], found: Found) -> GlanceOutput:
        if not self.shares:
            found.glances += numbers.numel()
            found.cost += len(windows) * self.backbone_cost
            return self.network.glance(self._normalized(windows, numbers))
        if new := sorted({*numbers.flatten().tolist()} - maps.keys()):
            fresh = self.network.glance_maps(self._normalized(windows, torch.tensor([new])))
            maps.update(zip(new, fresh[0], strict=True))
        found.glances += len(new)
        found.cost += round(len(new) * self.backbone_cost / self.glances)
        stacked = torch.stack([maps[number] for number in numbers.flatten().tolist()])
        for number in [number for number in maps if number < windows.keep]:
            del maps[number]
        return self.network.glance_of(stacked.unflatten(0, tuple(numbers.shape)))

    def _focus(self, windows: Windows, rows: Tensor, numbers: Tensor, glance: GlanceOutput) -> Tensor:
        """Logits (B', K) of the whole network for the windows `rows` (B,)."""
        network, shown = self.network, windows.numbers[rows]
        plan = network.decide(glance)
        if network.chooses_frames:
            shown = shown.gather(1, plan.frames.cpu() + network.first_candidate)
        elif network.shares_frames:
            shown = numbers[rows]
        else:
            shown = network.focus_frames(shown)
        return network.focus(self._normalized(windows, shown), plan, glance).logits.float()

    def _normalized(self, windows: Windows, numbers: Tensor) -> Tensor:
        return self.stage.normalize(windows.stack(numbers).to(self.predictor.device))


class _Mean:
    """Weighted mean of the probabilities of the windows that show a step of the grid."""

    def __init__(self, overlap: int) -> None:
        steps = np.arange(overlap)
        self.weights = np.minimum(steps + 1, overlap - steps).astype(float)
        self.first = 0  # steps before the first one in `sums` have been taken
        self.windows = 0
        self.sums: deque[np.ndarray] = deque()  # by step: weighted probabilities, and at last the sum of weights

    def add(self, probabilities: np.ndarray) -> None:
        """Adds the probabilities (K,) of the next window, which begins a step after the one before it."""
        row = np.append(probabilities, 1.0)
        for step, weight in enumerate(self.weights, self.windows - self.first):
            if step == len(self.sums):
                self.sums.append(np.zeros_like(row))
            self.sums[step] += weight * row
        self.windows += 1

    def pop(self) -> np.ndarray:
        """The mean (K,) at the earliest step that is left."""
        self.first += 1
        row = self.sums.popleft()
        return row[:-1] / row[-1]
