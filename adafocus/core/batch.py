"""`Batch`, the clips that the data loader yields and that training and evaluation read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be read: its index in the list of the split, its path, and the reason."""

    index: int
    path: str
    reason: str


@dataclass(frozen=True)
class Mixed:
    """The partners and shares of clips that were mixed with other clips of the batch (mixup, CutMix).

    Attributes:
        partner: (B,) int64, the row of the clip that each was mixed with.
        share: (B,) share of the clip's own label, at least 1/2; its partner's label has the rest.
    """

    partner: Tensor
    share: Tensor


@dataclass
class Batch:
    """A batch of B clips with their labels.

    Attributes:
        frames: (B, T, H, W, C) uint8 in temporal order; they are normalized on the device. C is 3 (RGB), or 10 for
            optical flow. In evaluation (B, V, T, H, W, C) if the protocol takes V views (clips times crops) per video.
        labels: (B, L) int64 class ids, padded with -1; column 0 is the training target.
        index: (B,) int64, the index of each clip's video in the list of its split.
        epoch: the epoch that the clips were sampled for; -1 in evaluation. With `index` it seeds every random number
            that concerns a clip.
        valid: (B,) bool, False if the video could not be read (evaluation only: such a clip is all zeros).
        bad: the videos that could not be read while this batch was made.
        source: reads candidate frames on demand, for networks that choose their frames: called with (list of video
            indices, (B, n) candidate positions), it returns (B, n, H, W, C) uint8 and the videos that could not be
            read. None: `frames` already holds every frame.
        kept: video index -> all candidates (N, H, W, C), for videos whose candidates are decoded already.
        teacher: (B, K) logits of a teacher; a row is NaN if it could not read the video. None without a teacher.
        mixed: partners and shares of mixed clips; None if clips were not mixed.
        subject: (B, T, 2) true center (y, x) of the subject in every frame, as shares of the frame's side; None if it
            is not known, as of real videos.
    """

    frames: Tensor
    labels: Tensor
    index: Tensor
    epoch: int
    valid: Tensor
    bad: list[BadVideo] = field(default_factory=list)
    source: Callable[[list[int], Tensor], tuple[Tensor, list[BadVideo]]] | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)
    teacher: Tensor | None = None
    mixed: Mixed | None = None
    subject: Tensor | None = None

    def read(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Reads the candidate frames that a network chose.

        A video that cannot be read gives zeros; it is added to `bad`, and its entry of `valid` becomes False.

        Args:
            rows: (B',) int64, the clips of this batch to read frames for.
            candidates: (B', n) int64, the positions of the chosen frames among each clip's candidates.

        Returns:
            (B', n, H, W, C) uint8 frames on the device of `frames`.
        """
        index, candidates = self.index[rows.cpu()].tolist(), candidates.cpu()
        missing = [place for place, video in enumerate(index) if video not in self.kept]
        read, bad = self._decode([index[place] for place in missing], candidates[missing])
        if len(missing) < len(index):
            decoded = iter(read)
            read = torch.stack(
                [
                    self.kept[video][candidates[place]] if video in self.kept else next(decoded)
                    for place, video in enumerate(index)
                ]
            )
        for video in bad:
            if video.index not in {known.index for known in self.bad}:
                self.bad.append(video)
            self.valid[self.index == video.index] = False
        return read.to(self.frames.device, non_blocking=True)

    def _decode(self, videos: list[int], candidates: Tensor) -> tuple[Tensor, list[BadVideo]]:
        if not videos:
            return torch.empty(0), []
        if self.source is None:
            raise ValueError("the batch has no source of frames, because `frames` already holds every frame")
        return self.source(videos, candidates)

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> Batch:
        return replace(self, frames=self.frames.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """Copies frames, labels and the teacher's logits to `device`; `index` and `valid` are used on the CPU."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            teacher=None if self.teacher is None else self.teacher.to(device, non_blocking=True),
            subject=None if self.subject is None else self.subject.to(device, non_blocking=True),
        )


def only(batch: Batch, rows: Tensor) -> Batch:
    """Returns a batch with only the clips that a mask (B,) or indices on the CPU select; `bad` is the same list."""
    rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
    index, there = batch.index[rows], rows.to(batch.frames.device, non_blocking=True)
    kept = {video: batch.kept[video] for video in index.tolist() if video in batch.kept}
    frames, labels = batch.frames[there], batch.labels[there]
    return replace(batch, frames=frames, labels=labels, index=index, valid=batch.valid[rows], kept=kept)
