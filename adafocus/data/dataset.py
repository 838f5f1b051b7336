"""The torch datasets. Items are indexed by (epoch, index), so that augmentation is a function of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from adafocus.core.batch import BadVideo, Batch
from adafocus.core.files import first_line
from adafocus.core.rng import generator
from adafocus.data.annotations import MAX_LABELS, Record
from adafocus.data.arrays import ArrayVideo
from adafocus.data.frame_cache import FrameCache
from adafocus.data.frames import FrameFolder
from adafocus.data.glyphs import GlyphVideos
from adafocus.data.storage import Storage
from adafocus.data.video import VideoError, open_video
from adafocus.data.view import View

EVALUATION = -1  # stands for the epoch in the index of an evaluation item
REPLACEMENTS = 10  # maximal number of other videos that training tries in place of an unreadable one


@dataclass
class Item:
    """One clip: frames (T, H, W, C) uint8 and labels (3,) int64 padded with -1.

    In evaluation with several views frames are (V, T, H, W, C), ordered by crop, then clip. `frames` is None if the
    video could not be read.
    """

    frames: Tensor | None
    labels: Tensor
    index: int
    epoch: int
    bad: list[BadVideo]
    kept: Tensor | None = None  # all candidates (N, H, W, C), if they were decoded along with the frames
    teacher: Tensor | None = None  # (K,) logits of a teacher, in training
    subject: Tensor | None = None  # (T, 2), see `Batch.subject`


class ClipSource(Protocol):
    """The interface of a data set for the loader: items by (epoch, index).

    Attributes:
        teacher: (N, K) logits of a teacher for the N videos, which are added to training items; None without a teacher.
    """

    teacher: Tensor | None

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Item: ...

    def path(self, index: int) -> str:
        """Returns the name of a video for messages and tables."""


class ChosenSource(ClipSource, Protocol):
    """A data set whose evaluation items lack the candidate frames; `choose` decodes those that are needed."""

    candidates: int  # number of candidate frames N; 0: the items hold all frames
    size: int  # side of the square clip in pixels

    def choose(self, index: int, positions: np.ndarray) -> Tensor:
        """Decodes some candidate frames of an evaluation video.

        Args:
            index: index of the video.
            positions: (n,) positions among its candidates.

        Returns:
            the frames (n, H, W, C) uint8.

        Raises:
            VideoError: the video is unreadable.
        """


def pad_labels(labels: Sequence[int]) -> Tensor:
    return torch.tensor([*labels, *[-1] * (MAX_LABELS - len(labels))], dtype=torch.int64)


class Indexed(Protocol):
    """A sequence of videos as arrays, accessed by index."""

    def __getitem__(self, index: int) -> np.ndarray: ...


class VideoClips:
    """Clips of video files or frame folders.

    In training, an unreadable video is reported in `Item.bad` and replaced by another one, chosen as a function of
    (seed, epoch, index); in evaluation it is only reported.

    Args:
        records: the videos.
        root: the folder that their paths are relative to.
        view: the choice of frames, size, crops and augmentation.
        seed: seed of the run.
        template: pattern of file names in frame folders (`image_{:05d}.jpg`); None for video files.
        reader: reader of video files: auto, decord, pyav or torchcodec.
        known_bad: paths that are missing or known to be unreadable -> reason; they are not opened.
        timeout: seconds that one video may take to decode.
        cache_bytes: memory for decoded videos, in each loader process.
        flow: whether frame folders hold optical flow.
        storage: where the bytes of the videos come from; None: files below `root`.
        alone: whether a rule that draws the frames of an evaluation clip draws as for the first video of a list, so
            that they do not depend on the list.
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
        storage: Storage | None = None,
        alone: bool = False,
    ) -> None:
        self.records = records
        self.storage, self.alone = storage, alone
        self.root = root
        self.view = view
        self.seed = seed
        self.template = template
        self.reader = reader
        self.flow = flow
        self.known_bad = dict(known_bad or {})
        self.timeout = timeout
        self.cache = FrameCache(cache_bytes)
        #: Frames, height and width of the videos that this process has opened.
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self.groups: dict[str, float] = {}  # path -> `Video.group`
        self.teacher: Tensor | None = None

    @property
    def candidates(self) -> int:
        return self.view.candidates

    @property
    def size(self) -> int:
        return self.view.size

    def path(self, index: int) -> str:
        return self.records[index].path

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

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """The items of a batch, as torch's loader asks for them; reading the next ones goes on while one is decoded."""
        if self.storage is not None:
            self.storage.prefetch([self.records[index] for _, index in keys])
        return [self[key] for key in keys]

    def _training_item(
        self, chosen: int, index: int, epoch: int, rng: np.random.Generator, bad: list[BadVideo]
    ) -> Item:
        record = self.records[chosen]
        labels = [int(label) for label in rng.permutation(record.labels)]
        frames, place = self._read(record, lambda count: self.view.training_indices(count, rng))
        flip = bool(rng.random() < self.view.flip)
        if flip and self.view.flip_labels:
            labels = [self.view.flip_labels.get(label, label) for label in labels]
        if self.view.separate_crops and len(self.view.sets) == 2:
            sets = (place[: self.view.segments], place[self.view.segments :])
            clip = torch.cat([_gather(self.view.training(frames, rng, flip=flip), part) for part in sets])
        else:
            clip = _gather(self.view.training(frames, rng, flip=flip), place)
        return Item(
            self.view.augmented(clip, rng), pad_labels(labels), index, epoch, bad, teacher=self._taught(chosen, flip)
        )

    def _taught(self, index: int, flip: bool) -> Tensor | None:
        """Returns the teacher's logits of a video; a flip swaps the logits of classes that it exchanges."""
        if self.teacher is None or not (flip and self.view.flip_labels):
            return None if self.teacher is None else self.teacher[index]
        logits = self.teacher[index]
        return logits[[self.view.flip_labels.get(label, label) for label in range(len(logits))]]

    def _evaluation_item(self, index: int) -> Item:
        record = self.records[index]
        rng = generator(self.seed, "evaluation", 0 if self.alone else index)

        def indices(count: int) -> np.ndarray:
            first = self.view.clips(count, rng)
            # If key frames are so rare that the frames between the wanted ones are decoded anyway, all candidates are
            # kept, because decoding them later would start at the same key frame again.
            if self.view.candidates and self.groups[record.path] * first.shape[1] > count:
                return np.concatenate([first, self.view.evaluation_candidates(count)[None]], 1)
            return first

        try:
            frames, place = self._read(record, indices)
        except VideoError as error:
            return Item(None, pad_labels(record.labels), index, EVALUATION, [BadVideo(index, record.path, str(error))])
        views = [_gather(crop, clip) for crop in self.view.evaluation(frames) for clip in place]
        clips = torch.stack(views) if len(views) > 1 else views[0]
        kept = None
        if self.view.candidates and len(clips) > self.view.at_once:
            clips, kept = clips[: self.view.at_once], clips[self.view.at_once :]
        return Item(clips, pad_labels(record.labels), index, EVALUATION, [], kept)

    def choose(self, index: int, positions: np.ndarray) -> Tensor:
        """Decodes the candidates at `positions` (n,) of evaluation video `index`, (n, H, W, C) uint8."""
        frames, place = self._read(self.records[index], lambda count: self.view.evaluation_candidates(count)[positions])
        return _gather(self.view.evaluation(frames)[0], place)

    def _open(self, record: Record) -> Any:
        path = self.root / record.path
        if self.template is None:
            data = None if self.storage is None else self.storage.read(record)
            return open_video(path, reader=self.reader, timeout=self.timeout, data=data)
        return FrameFolder(path, template=self.template, num_frames=record.num_frames, flow=self.flow)

    def _read(self, record: Record, choose: Callable[[int], np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """Reads the distinct frames (n, H, W, C) that `choose` names, and returns the index (..., T, L) of each one."""
        if record.path in self.known_bad:
            raise VideoError(f"{record.path}: {self.known_bad[record.path]}")
        place: np.ndarray = np.empty(0, np.int64)

        def opened() -> Any:
            video = self._open(record)
            self.shapes[record.path] = (video.num_frames, video.height, video.width)
            self.groups[record.path] = video.group
            return video

        def distinct(count: int) -> np.ndarray:
            nonlocal place
            snippets = np.minimum(choose(count)[..., None] + np.arange(self.view.snippet), count - 1)
            wanted, flat = np.unique(snippets, return_inverse=True)
            place = flat.reshape(snippets.shape)
            return wanted

        frames = self.cache.read(record.path, opened, distinct, self.view.decode_short_side)
        return torch.from_numpy(frames), place


class ArrayClips(VideoClips):
    """Clips of videos that are given as arrays.

    Args:
        videos: sequence of arrays (T, H, W, 3) uint8 in RGB, each read when it is needed; OSError and ValueError mean
            that a video cannot be read.
        labels: class of every video.
        view, seed, cache_bytes: arguments of `VideoClips`.
        name: prefix of the video's number in messages.
    """

    def __init__(
        self,
        videos: Indexed,
        labels: Sequence[int],
        view: View,
        *,
        seed: int,
        name: str = "array",
        cache_bytes: int = 0,
    ) -> None:
        records = [Record(f"{name} {number}", (int(label),)) for number, label in enumerate(labels)]
        super().__init__(records, Path(), view, seed=seed, cache_bytes=cache_bytes)
        self.videos, self.numbers = videos, {record.path: number for number, record in enumerate(records)}

    def _open(self, record: Record) -> Any:
        try:
            frames = self.videos[self.numbers[record.path]]
        except (OSError, ValueError) as error:
            raise VideoError(f"{record.path}: {first_line(error)}") from error
        return ArrayVideo(frames, record.path)


def _gather(frames: Tensor, place: np.ndarray) -> Tensor:
    """Makes a clip (T, h, w, L * C) of distinct frames (n, h, w, C) by indices (T, L), without a copy if in order."""
    if place.shape == (len(frames), 1) and (place[:, 0] == np.arange(len(frames))).all():
        return frames
    clip = frames[torch.from_numpy(place)]
    return clip.permute(0, 2, 3, 1, 4).flatten(3) if place.shape[1] > 1 else clip[:, 0]


class GlyphClips:
    """Clips of the synthetic videos of `dataset=glyphs`, rendered on access as a function of (seed, split, index).

    Args:
        videos: the videos.
        sets: sizes of sets of evenly spaced frames that a clip concatenates; with (8, 12) a clip has 8 evenly spaced
            frames and then 12. Empty: all frames of the video.
        candidates, first: number of candidate frames and positions of the glance frames among them, as in `View`;
            evaluation items then hold the glance frames only, and `choose` returns the others.
    """

    def __init__(
        self, videos: GlyphVideos, sets: Sequence[int] = (), *, candidates: int = 0, first: Sequence[int] = ()
    ) -> None:
        self.videos, self.candidates, self.size = videos, candidates, videos.frame_size
        spread = [np.arange(count) * videos.frames // count for count in sets]
        self.shown = np.concatenate(spread) if spread else np.arange(videos.frames)
        self.at_once = self.shown[list(first)] if first else self.shown[: len(self.shown) - candidates]
        self.teacher: Tensor | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        drawn = self.videos.draw(index)
        shown = self.at_once if self.candidates and epoch == EVALUATION else self.shown
        taught = None if self.teacher is None or epoch == EVALUATION else self.teacher[index]
        subject = torch.from_numpy(drawn.where[shown] + self.videos.glyph_size / 2) / self.size
        frames, label = torch.from_numpy(drawn.frames[shown]), pad_labels([drawn.label])
        return Item(frames, label, index, epoch, [], teacher=taught, subject=subject)

    def path(self, index: int) -> str:
        return f"glyphs {index}"

    def choose(self, index: int, positions: np.ndarray) -> Tensor:
        candidates = self.shown[len(self.shown) - self.candidates :]
        return torch.from_numpy(self.videos.draw(index).frames[candidates[positions]])


def collate(items: Sequence[Item]) -> Batch:
    """Joins items to a batch; unreadable videos (in evaluation only) get frames of zeros and `valid` False."""
    shape = next((item.frames.shape for item in items if item.frames is not None), None)
    if shape is None:  # no video is readable, so the shape of a clip is unknown: the batch has no frames
        frames = torch.empty(0, dtype=torch.uint8)
    else:
        frames = torch.stack(
            [torch.zeros(shape, dtype=torch.uint8) if item.frames is None else item.frames for item in items]
        )
    taught = [item.teacher for item in items if item.teacher is not None]
    subjects = [item.subject for item in items if item.subject is not None]
    return Batch(
        frames=frames,
        labels=torch.stack([item.labels for item in items]),
        index=torch.tensor([item.index for item in items]),
        epoch=items[0].epoch,
        valid=torch.tensor([item.frames is not None for item in items]),
        bad=[bad for item in items for bad in item.bad],
        kept={item.index: item.kept for item in items if item.kept is not None},
        teacher=torch.stack(taught) if taught else None,
        subject=torch.stack(subjects) if subjects else None,
    )
