"""Records to clips: the torch datasets. Items are asked for by (epoch, index), so that augmentation is a function of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from adafocus.batch import BadVideo, Batch
from adafocus.data.annotations import MAX_LABELS, Record
from adafocus.data.frames import FrameFolder
from adafocus.data.glyphs import GlyphVideos
from adafocus.data.sampling import evaluation_frames, training_frames
from adafocus.data.transforms import (
    CROP_SCALES,
    crop_places,
    evaluation_views,
    resize,
    short_side_size,
    train_view,
)
from adafocus.data.video import VideoError, open_video
from adafocus.draws import generator

EVALUATION = -1  # the epoch of an item that is read for evaluation
REPLACEMENTS = 10  # how many other videos are tried for an unreadable one in training


@dataclass
class Item:
    """One clip: frames uint8, labels (3,) int64, or no frames where the video could not be read.

    Frames are (T, H, W, C); where evaluation looks at several views of a video (V, T, H, W, C), crop by crop.
    """

    frames: Tensor | None
    labels: Tensor
    index: int
    epoch: int
    bad: list[BadVideo]


class ClipSource(Protocol):
    """What the loader asks of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Item: ...


def pad_labels(labels: Sequence[int]) -> Tensor:
    return torch.tensor([*labels, *[-1] * (MAX_LABELS - len(labels))], dtype=torch.int64)


@dataclass(frozen=True)
class View:
    """How frames become a clip, in training and in evaluation.

    Attributes:
        segments: T, segments of a clip, one frame each.
        second: a second set of frames, drawn on its own and appended to the clip (glance frames, then focus frames).
        separate_crops: in training the second set has a crop of its own, as in the released programs on TSM.
        size: side of the square clip in pixels.
        short_side: evaluation resizes the shorter side to this before the crops.
        short: rule for short videos (`sampling.SHORT_RULES`).
        training_rule, evaluation_rule: which frames (`sampling.TRAINING_RULES`, `EVALUATION_RULES`).
        window: of dense sampling.
        crops: 1, 3, 5 or 10 places that evaluation looks at.
        flush: MMAction2's three crops, see `transforms.crop_places`.
        flip: probability of a mirrored training clip.
        flip_labels: class ids that a mirror exchanges.
        scales: of the training crop.
        stretch: whole frames are stretched to the square, instead of cropped to it; training crops keep to the frame's shape.
        decode_short_side: decode at this short side (None: as stored).
        snippet: L, consecutive frames of each segment, side by side in the channels (optical flow: 5).
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
    snippet: int = 1
    second: int = 0
    separate_crops: bool = False

    def __post_init__(self) -> None:
        """Finds a rule or a number of crops that does not exist before the first video is read."""
        rng = generator(0, "view")
        training_frames(100, self.segments, rng, rule=self.training_rule, short=self.short, window=self.window)
        self.clips(100, rng)
        crop_places(self.short_side, self.short_side, self.size, self.crops, flush=self.flush)
        if self.stretch and self.crops != 1:
            raise ValueError(f"dataset.fit=stretch shows whole frames: there are no {self.crops} crops of them")

    def clips(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """(clips, T) indices that evaluation looks at; `rng` for rules that draw."""
        options = {"short": self.short, "window": self.window, "length": self.snippet, "rng": rng}
        sets = [
            evaluation_frames(num_frames, segments, self.evaluation_rule, **options)
            for segments in (self.segments, self.second)
            if segments
        ]
        return np.concatenate(sets, 1)

    @property
    def views(self) -> int:
        """V, clips times crops of a video in evaluation."""
        return len(self.clips(100, generator(0, "view"))) * self.crops

    def protocol(self) -> str:
        """One line that says how a score was measured; the number of frames is a choice, not a protocol."""
        decoded = "" if self.decode_short_side is None else f", decoded at short side {self.decode_short_side}"
        clips = self.views // self.crops
        rule = {"middle": f"uniform frames ({self.short.replace('_', ' ')})", "uniform-1": "uniform frames"}.get(
            self.evaluation_rule, f"{self.evaluation_rule} frames"
        )
        if self.evaluation_rule.startswith("dense"):
            rule += f" of {self.window or 'whole strides'}"
        count = f"{clips} clip{'s' if clips > 1 else ''}"
        if self.stretch:
            return f"{rule}, {count}, whole frame stretched to {self.size}{decoded}"
        crops = "centre" if self.crops == 1 else f"{self.crops} {'flush ' if self.flush else ''}crops,"
        return f"{rule}, {count}, {crops} {self.size} of {self.short_side}{decoded}"

    def training_indices(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """(T,) indices of a training clip."""
        options = {"rule": self.training_rule, "short": self.short, "window": self.window, "length": self.snippet}
        sets = [
            training_frames(num_frames, segments, rng, **options)
            for segments in (self.segments, self.second)
            if segments
        ]
        return np.concatenate(sets)

    def training(self, frames: Tensor, rng: np.random.Generator, *, flip: bool) -> Tensor:
        return train_view(frames, self.size, rng, flip=flip, scales=self.scales, stretch=self.stretch)

    def evaluation(self, frames: Tensor) -> Tensor:
        """(n, H, W, C) distinct frames to (crops, n, size, size, C)."""
        if self.stretch:
            return resize(frames, self.size, self.size).contiguous()[None]
        return evaluation_views(frames, self.size, self.short_side, self.crops, flush=self.flush)


class FrameCache:
    """All frames of the videos that were read first, until a number of bytes is full. Later epochs need no decoder.

    Nothing is ever evicted: a shuffled epoch asks for every video once, so whatever would be evicted is asked for again.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._videos: dict[str, np.ndarray] = {}

    def read(
        self, path: str, opened: Callable[[], Any], choose: Callable[[int], np.ndarray], short_side: int | None
    ) -> np.ndarray:
        """Frames that `choose` names of a video, from memory or from the reader that `opened` gives."""
        frames = self._videos.get(path)
        if frames is not None:
            return frames[choose(len(frames))]
        with opened() as video:
            height, width = video.height, video.width
            if short_side is not None and short_side < min(height, width):
                height, width = short_side_size(height, width, short_side)
            size = video.num_frames * height * width * video.channels
            if self.used + size > self.limit:
                return video.read(choose(video.num_frames), short_side)
            frames = video.read(range(video.num_frames), short_side)
        self._videos[path] = frames
        self.used += size
        return frames[choose(len(frames))]


class VideoClips:
    """Clips of video files or frame folders.

    An unreadable video in training gives way to another one, drawn from (seed, epoch, index) and reported in `Item.bad`;
    in evaluation it is reported and never replaced.

    Args:
        records: the videos.
        root: the folder that their paths are relative to.
        view: how frames become a clip.
        seed: of the run.
        template: file names of frame folders (`image_{:05d}.jpg`); None for video files.
        reader: of video files: auto, decord, pyav or torchcodec.
        known_bad: paths that are not worth a try (missing, or named by an earlier check).
        timeout: seconds that one video may take to decode.
        cache_bytes: memory for decoded videos, in each loader process.
        flow: frame folders hold optical flow.
    """

    def __init__(
        self,
        records: Sequence[Record],
        root: Path,
        view: View,
        *,
        seed: int,
        template: str | None = None,
        reader: str = "auto",
        known_bad: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
        cache_bytes: int = 0,
        flow: bool = False,
    ) -> None:
        self.records = list(records)
        self.root = root
        self.view = view
        self.seed = seed
        self.template = template
        self.reader = reader
        self.flow = flow
        self.known_bad = dict(known_bad or {})
        self.timeout = timeout
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        if epoch == EVALUATION:
            return self._evaluation_item(index)
        bad: list[BadVideo] = []
        for attempt in range(REPLACEMENTS):
            rng = generator(self.seed, "augment", epoch, index, attempt)
            chosen = index if attempt == 0 else int(rng.integers(len(self.records)))
            try:
                return self._training_item(chosen, index, epoch, rng, bad)
            except VideoError as error:
                bad.append(BadVideo(chosen, self.records[chosen].path, str(error)))
        raise VideoError(f"{REPLACEMENTS} videos in a row cannot be read; the last: {bad[-1].reason}")

    def _training_item(
        self, chosen: int, index: int, epoch: int, rng: np.random.Generator, bad: list[BadVideo]
    ) -> Item:
        record = self.records[chosen]
        labels = [int(label) for label in rng.permutation(record.labels)]
        frames, place = self._read(record, lambda count: self.view.training_indices(count, rng))
        flip = bool(rng.random() < self.view.flip)
        if flip and self.view.flip_labels:
            labels = [self.view.flip_labels.get(label, label) for label in labels]
        if self.view.separate_crops and self.view.second:
            sets = (place[: self.view.segments], place[self.view.segments :])
            clip = torch.cat([_gather(self.view.training(frames, rng, flip=flip), part) for part in sets])
        else:
            clip = _gather(self.view.training(frames, rng, flip=flip), place)
        return Item(clip, pad_labels(labels), index, epoch, bad)

    def _evaluation_item(self, index: int) -> Item:
        record = self.records[index]
        rng = generator(self.seed, "evaluation", index)
        try:
            frames, place = self._read(record, lambda count: self.view.clips(count, rng))
        except VideoError as error:
            return Item(None, pad_labels(record.labels), index, EVALUATION, [BadVideo(index, record.path, str(error))])
        views = [_gather(crop, clip) for crop in self.view.evaluation(frames) for clip in place]
        clips = torch.stack(views) if len(views) > 1 else views[0]
        return Item(clips, pad_labels(record.labels), index, EVALUATION, [])

    def _read(self, record: Record, choose: Callable[[int], np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """Each distinct frame once, (n, H, W, C), and where it belongs: (..., T, L) places in them."""
        if record.path in self.known_bad:
            raise VideoError(f"{record.path}: {self.known_bad[record.path]}")
        path = self.root / record.path
        place = np.empty(0, np.int64)

        def opened() -> Any:
            if self.template is None:
                return open_video(path, reader=self.reader, timeout=self.timeout)
            return FrameFolder(path, template=self.template, num_frames=record.num_frames, flow=self.flow)

        def distinct(count: int) -> np.ndarray:
            nonlocal place
            snippets = np.minimum(choose(count)[..., None] + np.arange(self.view.snippet), count - 1)
            wanted, flat = np.unique(snippets, return_inverse=True)
            place = flat.reshape(snippets.shape)
            return wanted

        frames = self.cache.read(record.path, opened, distinct, self.view.decode_short_side)
        return torch.from_numpy(frames), place


def _gather(frames: Tensor, place: np.ndarray) -> Tensor:
    """(n, h, w, C) distinct frames to a clip (T, h, w, L C) by places (T, L); without a copy where they are in order."""
    if place.shape == (len(frames), 1) and (place[:, 0] == np.arange(len(frames))).all():
        return frames
    clip = frames[torch.from_numpy(place)]
    return clip.permute(0, 2, 3, 1, 4).flatten(3) if place.shape[1] > 1 else clip[:, 0]


class GlyphClips:
    """`dataset=glyphs` as clips: drawn at run time, each a function of (seed, split, index) alone."""

    def __init__(self, videos: GlyphVideos, segments: Sequence[int] = ()) -> None:
        """`segments`: sizes of several sets of evenly spread frames, one after the other; none: all frames once."""
        self.videos = videos
        spread = [np.arange(count) * videos.frames // count for count in segments]
        self.shown = np.concatenate(spread) if spread else slice(None)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        drawn = self.videos.draw(index)
        return Item(torch.from_numpy(drawn.frames[self.shown]), pad_labels([drawn.label]), index, epoch, [])


def collate(items: Sequence[Item]) -> Batch:
    """Items to a batch. Frames of unreadable videos (evaluation only) are zeros, and `valid` says so."""
    shape = next((item.frames.shape for item in items if item.frames is not None), None)
    if shape is None:  # nothing readable: one black pixel a clip would not fit a network, so keep the batch empty
        frames = torch.empty(0, dtype=torch.uint8)
    else:
        frames = torch.stack(
            [torch.zeros(shape, dtype=torch.uint8) if item.frames is None else item.frames for item in items]
        )
    return Batch(
        frames=frames,
        labels=torch.stack([item.labels for item in items]),
        index=torch.tensor([item.index for item in items]),
        epoch=items[0].epoch,
        valid=torch.tensor([item.frames is not None for item in items]),
        bad=[bad for item in items for bad in item.bad],
    )
