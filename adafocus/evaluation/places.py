"""Statistics of the patch locations that a policy chooses: their mean, their variation and the patches' area."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from adafocus.core.batch import Batch, only
from adafocus.core.stage import Stage
from adafocus.processes.distributed import World

TRAINING_CLIPS = 256  #: maximal number of training clips for the mean location
STILL = 0.02  #: below this standard deviation of the locations there is a warning
WHOLE = 0.98  #: a rectangle with at least this share of the frame's area counts as the whole frame
MOST = 0.9  #: above this share of clips with whole-frame rectangles there is a warning


@dataclass(frozen=True)
class PlaceStatistics:
    """Statistics of the patch locations for N clips. Locations are fractions of the largest offset.

    Attributes:
        clips: number of clips N.
        spread_clips: standard deviation over clips of the location (y, x) at the same step, averaged over steps, y and
            x; 0 if the locations are the same in every clip.
        spread_frames: standard deviation over the frames of a clip, averaged over clips, y and x; None if there is one
            location per clip.
        area_min, area_median, area_max: smallest, median and largest patch area over clips, as a share of the frame's
            area; a clip's area is the mean over its frames.
        whole_frames: number of clips whose area is at least `WHOLE`.
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
        """A warning for the log if the locations hardly vary or the rectangles are whole frames; else None."""
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
        """The statistics that are logged during training."""
        curves = {"place_spread_clips": self.spread_clips, "place_area": self.area_median}
        return curves if self.spread_frames is None else {**curves, "place_spread_frames": self.spread_frames}


def place_statistics(where: Tensor, boxes: Tensor, frame_size: int) -> PlaceStatistics:
    """Statistics of the patch locations of N clips.

    Args:
        where: (N, T, 2) locations or (N, T, 4) rectangles as in `Output.where`; T is 1 if there is one per clip.
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
    """The mean patch location (2,) or rectangle (4,), float32 in [0, 1], in the format of `Output.where`.

    Centers and sides are averaged in pixels and converted back, because fractions of offsets have different scales for
    rectangles of different sizes. Arguments are those of `place_statistics`.
    """
    where, boxes = where.flatten(0, 1).double(), boxes.flatten(0, 1).double()
    free = frame_size - boxes[:, 2:]
    corner = torch.where(free.mean(0) > 1e-6, boxes[:, :2].mean(0) / free.mean(0).clamp(min=1e-6), 0.5)
    return torch.cat([corner, where[:, 2:].mean(0)]).clamp(0, 1).float()


def boxes_of_frames(numbers: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Groups patches by their frames.

    Args:
        numbers: (n,) the frame of each patch.
        boxes: (n, 4) the patches.

    Returns:
        The distinct frames (T,), ascending, and their patches (T, P, 4); frames with fewer than P have some of size 0.
    """
    frames, slots = numbers.unique(return_inverse=True)
    found = [boxes[slots == slot] for slot in range(len(frames))]
    return frames, torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


@torch.no_grad()
def learned_mean(stage: Stage, batches: Iterable[Batch], world: World) -> Tensor | None:
    """`mean_place` of the locations that the policy chooses for the clips of all processes.

    Only the glance network and the policy run. None if no clip could be read.
    """
    found: list[Tensor] = []
    for batch in batches:
        if batch.valid.any():
            found.append(stage.learned_places(_readable(batch).to(world.device)).float().cpu())
    shares = [share for part in world.gather(found) for share in part]
    if not shares:
        return None
    where, network = torch.cat(shares), cast(Any, stage.model)
    if network.chooses_cells:
        return network.mean_place(where)
    return mean_place(where, network.boxes(where), network.frame_size)


def _readable(batch: Batch) -> Batch:
    """The readable clips of a batch; the first view of each video if there are several."""
    batch = only(batch, batch.valid)
    return batch if batch.frames.ndim == 5 else replace(batch, frames=batch.frames[:, 0])
