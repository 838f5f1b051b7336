"""The one thing that data hands to stages: a batch of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be read: its place in the list, its path and the reader's reason."""

    index: int
    path: str
    reason: str


@dataclass
class Batch:
    """Clips on their way to a stage.

    Attributes:
        frames: (B, T, H, W, C) uint8, in temporal order, normalized on the device; C is 3 (RGB), or 10 for optical flow. In
            evaluation (B, V, T, H, W, C) where the protocol looks at V views of a video.
        labels: (B, L) int64 class ids, padded with -1; column 0 is the training target.
        index: (B,) int64, the place of each clip in its list.
        epoch: the epoch the clips were drawn for; -1 in evaluation. With `index` it seeds every draw about a clip.
        valid: (B,) bool, False where the video could not be read (evaluation only: its frames are zeros).
        bad: the unreadable videos met while this batch was made.
        source: gives frames that are not in `frames` because a network chooses them: (indices, (B, n) candidates) to
            (B, n, H, W, C) uint8 and the videos that could not be read. None: everything is in `frames`.
        kept: candidates (N, H, W, C) of single videos by index, which were decoded on the way and are not read again.
    """

    frames: Tensor
    labels: Tensor
    index: Tensor
    epoch: int
    valid: Tensor
    bad: list[BadVideo] = field(default_factory=list)
    source: Callable[[list[int], Tensor], tuple[Tensor, list[BadVideo]]] | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)

    def read(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Chosen frames (B', n, H, W, C) of some rows (B'), on the device of `frames`.

        A video that cannot be read now gives zeros, is noted in `bad` and no longer `valid`.
        """
        index, candidates = self.index[rows.cpu()].tolist(), candidates.cpu()
        missing = [place for place, video in enumerate(index) if video not in self.kept]
        read, bad = self.source([index[place] for place in missing], candidates[missing]) if missing else (None, [])
        if len(missing) < len(index):
            found = [
                None if video not in self.kept else self.kept[video][candidates[n]] for n, video in enumerate(index)
            ]
            for place, clip in zip(missing, () if read is None else read, strict=True):
                found[place] = clip
            read = torch.stack(found)
        for video in bad:
            if video.index not in {known.index for known in self.bad}:
                self.bad.append(video)
            self.valid[self.index == video.index] = False
        return read.to(self.frames.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> Batch:
        return replace(self, frames=self.frames.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """Frames and labels on `device`; index and valid stay on the CPU, where they are used."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


def only(batch: Batch, valid: Tensor) -> Batch:
    """The clips of a batch that could be read."""
    return replace(
        batch, frames=batch.frames[valid], labels=batch.labels[valid], index=batch.index[valid], valid=valid[valid]
    )
