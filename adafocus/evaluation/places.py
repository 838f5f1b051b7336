"""Where a policy looked, in numbers: the mean place, how far places move, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from adafocus.core.batch import Batch, only
from adafocus.core.stage import Stage
from adafocus.processes.distributed import World

TRAINING_CLIPS = 256  #: the mean place is measured on so many clips of the training set at most
STILL = 0.02  #: a policy whose places move by less than this share of the range stands still
WHOLE = 0.98  #: a rectangle with this share of the frame's area is the whole frame
MOST = 0.9  #: of the clips


@dataclass(frozen=True)
class PlaceStatistics:
    """The places that a policy chose for N clips.

    Attributes:
        clips: N.
        spread_clips: standard deviation over clips of the corner (y, x) at the same step, as a share of the range in which
            the corner is free; the mean over steps, y and x. 0: the same places in every clip.
        spread_frames: standard deviation over the frames of a clip, likewise, the mean over clips; None where a clip has
            one place for all its frames.
        area_min, area_median, area_max: smallest, median and largest share of the frame's area, over clips; that of a clip
            is the mean over its frames.
        whole_frames: clips whose share is at least `WHOLE`.
    """

    clips: int
    spread_clips: float
    spread_frames: float | None
    area_min: float
    area_median: float
    area_max: float
    whole_frames: int

    @property
    def warning(self) -> str | None:
        """One line where the policy does not choose places."""
        if self.whole_frames >= MOST * self.clips:
            return (
                f"the learned rectangle is the whole frame (at least {100 * WHOLE:.0f} % of its area) on "
                f"{self.whole_frames} of {self.clips} clips: the policy does not choose a place"
            )
        moved = max(self.spread_clips, self.spread_frames or 0.0, self.area_max - self.area_min)
        if moved < STILL:
            return (
                f"the policy stands still: its places differ by {moved:.3f} of the free range between clips and frames "
                f"(less than {STILL:g})"
            )
        return None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warning": self.warning}

    def scalars(self) -> dict[str, float]:
        """What is worth a curve in the course of training."""
        curves = {"place_spread_clips": self.spread_clips, "place_area": self.area_median}
        return curves if self.spread_frames is None else {**curves, "place_spread_frames": self.spread_frames}


def place_statistics(where: Tensor, boxes: Tensor, frame_size: int) -> PlaceStatistics:
    """Statistics of the places of N clips.

    Args:
        where: (N, T, 2) corners or (N, T, 4) rectangles, as `Output.where` has them; T is 1 where a clip has one place.
        boxes: (N, T, 4) the same as top, left, height and width in pixels.
        frame_size: side of the square frames in pixels.
    """
    corner = where[..., :2].double()
    area = (boxes[..., 2:].double().prod(-1) / frame_size**2).mean(1)
    return PlaceStatistics(
        clips=len(where),
        spread_clips=float(corner.std(0, correction=0).mean()),
        spread_frames=float(corner.std(1, correction=0).mean()) if where.shape[1] > 1 else None,
        area_min=float(area.min()),
        area_median=float(area.quantile(0.5)),
        area_max=float(area.max()),
        whole_frames=int((area >= WHOLE).sum()),
    )


def mean_place(where: Tensor, boxes: Tensor, frame_size: int) -> Tensor:
    """The mean square or rectangle of all places, in pixels: (2,) or (4,) float32 in [0, 1], as `Output.where` has them.

    The mean of centers and sides is meant: a corner is a share of the range that its rectangle leaves free, so corners of
    rectangles count by that range. Arguments are those of `place_statistics`.
    """
    where, boxes = where.flatten(0, 1).double(), boxes.flatten(0, 1).double()
    free = frame_size - boxes[:, 2:]
    corner = torch.where(free.mean(0) > 1e-6, boxes[:, :2].mean(0) / free.mean(0).clamp(min=1e-6), 0.5)
    return torch.cat([corner, where[:, 2:].mean(0)]).clamp(0, 1).float()


@torch.no_grad()
def learned_mean(stage: Stage, batches: Iterable[Batch], world: World) -> Tensor | None:
    """`mean_place` of what the policy chooses for this process's share of clips and the other processes' shares.

    Only the glance network and the policy run. None where no clip could be read.
    """
    found: list[Tensor] = []
    for batch in batches:
        if batch.valid.any():
            found.append(stage.learned_places(_readable(batch).to(world.device)).float().cpu())
    shares = [share for part in world.gather(found) for share in part]
    if not shares:
        return None
    where, network = torch.cat(shares), cast(Any, stage.model)
    return mean_place(where, network.boxes(where), network.frame_size)


def _readable(batch: Batch) -> Batch:
    """The clips that could be read, of several views of a video the first."""
    batch = only(batch, batch.valid)
    return batch if batch.frames.ndim == 5 else replace(batch, frames=batch.frames[:, 0])
