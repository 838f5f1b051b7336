"""`View`: frames, size, crops and augmentation by which a video becomes clips in training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adafocus.core.rng import generator
from adafocus.data.sampling import evaluation_frames, training_frames
from adafocus.data.transforms import (
    CROP_SCALES,
    crop_places,
    evaluation_views,
    rand_augment,
    resize,
    short_side_size,
    train_view,
)


@dataclass(frozen=True)
class View:
    """The rules by which a video becomes clips, in training and in evaluation.

    Attributes:
        segments: number of segments T of a clip, with one frame each.
        second: number of frames in a second set, sampled independently and appended to the clip (focus frames).
        candidates: number of frames N that a network chooses from. A training clip holds all of them after the glance
            frames; evaluation decodes only the chosen ones.
        first: positions of the glance frames among the candidates, if they are not a separate set; a training clip then
            holds the candidates only.
        separate_crops: whether the second set has its own random crop in training, as in the AdaFocus code for TSM.
        size: side of the square clip in pixels.
        short_side: evaluation resizes the shorter side to this many pixels before the crops.
        short: rule for short videos (`choices.SHORT_RULES`).
        training_rule, evaluation_rule: rules for the frames (`choices.TRAINING_RULES`, `sampling.EVALUATION_RULES`).
        window: number of frames that dense sampling spans.
        crops: number of test crops: 1, 3, 5 or 10.
        flush: whether to use MMAction2's three crops, as `transforms.crop_places` describes.
        flip: probability of a horizontal flip in training.
        flip_labels: class ids that a flip exchanges.
        scales: scales of the training crop.
        stretch: whether frames are stretched to the square instead of cropped; training crops keep the frame's shape.
        decode_short_side: shorter side to decode at; None: as stored.
        randaugment_ops, randaugment_magnitude: RandAugment in training, see `transforms.rand_augment`; 0: none.
        snippet: number L of consecutive frames per segment, concatenated on the channels (5 for optical flow).
    """

    segments: int
    size: int
    short_side: int
    short: str = "repeat_last"
    training_rule: str = "uniform"
    evaluation_rule: str = "middle"
    window: int | None = 64
    crops: int = 1
    flush: bool = False
    flip: float = 0.5
    flip_labels: Mapping[int, int] | None = None
    scales: tuple[float, ...] = CROP_SCALES
    stretch: bool = False
    decode_short_side: int | None = None
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9
    snippet: int = 1
    second: int = 0
    separate_crops: bool = False
    candidates: int = 0
    first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks rules and number of crops before the first video is read."""
        rng = generator(0, "view")
        training_frames(100, self.segments, rng, rule=self.training_rule, short=self.short, window=self.window)
        self.clips(100, rng)
        crop_places(self.short_side, self.short_side, self.size, self.crops, flush=self.flush)
        if self.stretch and self.crops != 1:
            raise ValueError(f"stretch shows whole frames: there are no {self.crops} crops of them")
        if self.candidates and self.views != 1:
            raise ValueError(f"a network that chooses frames looks at one clip and one crop, not at {self.views} views")

    @property
    def at_once(self) -> int:
        """Number of frames that evaluation reads before any are chosen."""
        return len(self.first) or self.segments + self.second

    @property
    def sets(self) -> tuple[int, ...]:
        """Sizes of the sets of frames that are concatenated in a training clip."""
        own = () if self.first else (self.segments,)
        return (*own, *(size for size in (self.second or self.candidates,) if size))

    def clips(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the frame indices (clips, T) of the evaluation clips; only random rules use `rng`."""
        if self.first:
            return self.evaluation_candidates(num_frames)[None, list(self.first)]
        sets = [self._evaluation(num_frames, size, rng) for size in (self.segments, self.second) if size]
        return np.concatenate(sets, 1)

    def evaluation_candidates(self, num_frames: int) -> np.ndarray:
        """Returns the indices (N,) of the candidate frames in evaluation."""
        return self._evaluation(num_frames, self.candidates)[0]

    def even_clip(self, num_frames: int) -> np.ndarray:
        """(T,) indices of the frames of a window of a longer video, in the order of a training clip.

        They are evenly spaced, also where evaluation takes several clips or a dense one.
        """
        rule = "fractional" if self.evaluation_rule == "fractional" else "middle"
        even = replace(self, evaluation_rule=rule, crops=1)
        sets = [even._evaluation(num_frames, size)[0] for size in even.sets]
        return np.concatenate(sets)

    def _evaluation(self, num_frames: int, size: int, rng: np.random.Generator | None = None) -> np.ndarray:
        return evaluation_frames(
            num_frames, size, self.evaluation_rule, short=self.short, window=self.window, length=self.snippet, rng=rng
        )

    @property
    def views(self) -> int:
        """Number of views V (clips times crops) of a video in evaluation."""
        return len(self.clips(100, generator(0, "view"))) * self.crops

    def protocol(self) -> str:
        """A line that describes how a score is measured, without the number of frames."""
        decoded = "" if self.decode_short_side is None else f", decoded at short side {self.decode_short_side}"
        clips = self.views // self.crops
        rule = {
            "middle": f"uniform frames ({self.short.replace('_', ' ')})",
            "uniform-1": "uniform frames",
            "fractional": "uniform frames",
        }.get(self.evaluation_rule, f"{self.evaluation_rule} frames")
        if self.evaluation_rule.startswith("dense"):
            rule += f" of {self.window or 'whole strides'}"
        count = f"{clips} clip{'s' if clips > 1 else ''}"
        if self.stretch:
            return f"{rule}, {count}, whole frame stretched to {self.size}{decoded}"
        crops = "center" if self.crops == 1 else f"{self.crops} {'flush ' if self.flush else ''}crops,"
        return f"{rule}, {count}, {crops} {self.size} of {self.short_side}{decoded}"

    def to_video(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Converts boxes (..., 4) (top, left, height, width) in pixels of an evaluation clip to pixels of its video."""
        if self.stretch:
            scale = torch.tensor([height / self.size, width / self.size])
            return boxes * scale.repeat(2)
        inner = short_side_size(height, width, self.short_side)
        corner = crop_places(*inner, self.size, self.crops, flush=self.flush)[0]
        moved = torch.cat([boxes[..., :2] + torch.tensor(corner), boxes[..., 2:]], -1)
        return moved * torch.tensor([height / inner[0], width / inner[1]]).repeat(2)

    def training_indices(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Samples the frame indices (T,) of a training clip."""
        chosen = partial(
            training_frames, rule=self.training_rule, short=self.short, window=self.window, length=self.snippet
        )
        return np.concatenate([chosen(num_frames, size, rng) for size in self.sets])

    def training(self, frames: Tensor, rng: np.random.Generator, *, flip: bool) -> Tensor:
        return train_view(frames, self.size, rng, flip=flip, scales=self.scales, stretch=self.stretch)

    def augmented(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Applies RandAugment, if configured, to a training clip (T, H, W, C)."""
        if not self.randaugment_ops:
            return clip
        return rand_augment(clip, rng, ops=self.randaugment_ops, magnitude=self.randaugment_magnitude)

    def evaluation(self, frames: Tensor) -> Tensor:
        """Resizes and crops distinct frames (n, H, W, C) for evaluation, (crops, n, size, size, C)."""
        if self.stretch:
            return resize(frames, self.size, self.size).contiguous()[None]
        return evaluation_views(frames, self.size, self.short_side, self.crops, flush=self.flush)
