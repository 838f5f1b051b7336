"""Statistics of the patch locations that a policy chooses: mean, variation, and the share of motion in the patches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus.core.batch import Batch, only
from adafocus.core.stage import Stage
from adafocus.processes.distributed import World

TRAINING_CLIPS = 256  #: maximal number of training clips that the mean location is measured on
STILL = 0.02  #: below this standard deviation of the locations there is a warning
WHOLE = 0.98  #: a rectangle with at least this share of the frame's area counts as the whole frame
MOST = 0.9  #: above this share of clips with whole-frame rectangles there is a warning


@dataclass(frozen=True)
class PlaceStatistics:
    """Computes statistics of the patch locations of N clips. Locations (y, x) are fractions of the largest offset.

    Attributes:
        clips: number of clips N.
        spread_clips: standard deviation over clips of the location (y, x) at the same step, averaged over steps, y and
            x; 0 if the locations are the same in every clip.
        spread_frames: standard deviation over the frames of a clip, averaged over clips, y and x; None if there is one
            location per clip.
        area_min, area_median, area_max: smallest, median and largest patch area over clips, as a share of the frame's
            area; a clip's area is the mean over its frames.
        whole_frames: number of clips whose area is at least `WHOLE`.
        moving: share of the motion of the frames that is inside the patches, see `motion_share`; None if not measured.
        moving_constant: share of the motion inside patches at the constant location; None if that is not evaluated.
        covered: share of the frames' area inside the patches, overlaps counted once; patches that ignore the motion
            have a `moving` near it.
        from_constant: mean distance of the patches' centers from the center of the constant patch, as a share of the
            frame's side; None without a constant location. Of several patches per frame, the i-th is compared with the
            i-th constant location.
    """

    clips: int
    spread_clips: float
    spread_frames: float | None
    area_min: float
    area_median: float
    area_max: float
    whole_frames: int
    moving: float | None = None
    moving_constant: float | None = None
    covered: float | None = None
    from_constant: float | None = None

    @property
    def warning(self) -> str | None:
        """A warning for the log if the locations hardly vary or the rectangles are whole frames; else None."""
        if self.whole_frames >= MOST * self.clips:
            return (
                f"the learned rectangle is the whole frame (at least {100 * WHOLE:.0f} % of its area) on "
                f"{self.whole_frames} of {self.clips} clips, so the policy does not choose a location"
            )
        moved = max(self.spread_clips, self.spread_frames or 0.0, self.area_max - self.area_min)
        if moved < STILL:
            return (
                f"the policy hardly moves: its patch locations vary by {moved:.3f} of the largest offset between clips "
                f"and frames (less than {STILL:g})"
            )
        return None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warning": self.warning}

    def scalars(self) -> dict[str, float]:
        """Returns the statistics that are logged during training."""
        curves = {
            "place_spread_clips": self.spread_clips,
            "place_area": self.area_median,
            "place_spread_frames": self.spread_frames,
            "place_moving": self.moving,
        }
        return {name: value for name, value in curves.items() if value is not None}


class MotionShare(NamedTuple):
    """Shares (B,) of clips that are inside their patches: of the motion, and of the area."""

    moving: Tensor
    covered: Tensor


def motion_share(frames: Tensor, boxes: Tensor) -> MotionShare:
    """Measures the share of a clip's motion that is inside its patches.

    The motion of a pixel is the sum over time and colors of the absolute differences of successive frames; a difference
    counts as inside if its pixel is inside a patch of either of its two frames. For patches that ignore the motion this
    share is near their share of the area. With a moving camera all pixels move, so the share is small.

    Args:
        frames: (B, T, H, W, C) uint8 in temporal order.
        boxes: (B, T, P, 4) top, left, height and width in pixels of the P patches of every frame.

    Returns:
        the shares (B,); the share of motion is 0 for a clip without motion.
    """
    height, width = frames.shape[2:4]
    moving, covered = [], []
    for clip, places in zip(frames, boxes, strict=True):
        inside = torch.zeros(clip.shape[:3], dtype=torch.bool, device=clip.device)
        for top, left, high, wide in places.permute(1, 2, 0).to(clip.device):
            rows, columns = (
                (at >= start.round()[:, None]) & (at < (start + side).round()[:, None])
                for at, start, side in (
                    (torch.arange(height, device=clip.device), top, high),
                    (torch.arange(width, device=clip.device), left, wide),
                )
            )
            inside |= rows[:, :, None] & columns[:, None, :]
        inside = inside[1:] | inside[:-1]
        change = (clip[1:].float() - clip[:-1].float()).abs().sum(-1)
        moving.append((change * inside).sum() / change.sum().clamp(min=1e-6))
        covered.append(inside.float().mean())
    return MotionShare(torch.stack(moving), torch.stack(covered))


def place_statistics(where: Tensor, boxes: Tensor, frame_size: int, *, frames_vary: bool = True) -> PlaceStatistics:
    """Computes statistics of the patch locations of N clips.

    Args:
        where: (N, T, 2) locations or (N, T, 4) rectangles as in `Output.where`; T is the number of locations if they
            apply to all frames of a clip.
        boxes: (N, T, 4) the same patches as top, left, height and width in pixels.
        frame_size: side of the square frames in pixels.
        frames_vary: whether every frame has a location of its own.
    """
    corner = where[..., :2].double()
    area = (boxes[..., 2:].double().prod(-1) / frame_size**2).mean(1)
    return PlaceStatistics(
        clips=len(where),
        spread_clips=float(corner.std(0, correction=0).mean()),
        spread_frames=float(corner.std(1, correction=0).mean()) if frames_vary and where.shape[1] > 1 else None,
        area_min=float(area.min()),
        area_median=float(area.quantile(0.5)),
        area_max=float(area.max()),
        whole_frames=int((area >= WHOLE).sum()),
    )


def center_distance(boxes: Tensor, constant: Tensor, frame_size: int) -> float:
    """Returns the mean distance of the centers of patches (N, T, 4) to (T or 1, 4), as a share of the frame's side."""
    centers, fixed = (one[..., :2].double() + one[..., 2:].double() / 2 for one in (boxes, constant))
    return float((centers - fixed).norm(dim=-1).mean()) / frame_size


def mean_place(where: Tensor, boxes: Tensor, frame_size: int) -> Tensor:
    """Returns the mean patch location (2,) or rectangle (4,), float32 in [0, 1], in the format of `Output.where`.

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
        numbers: (n,) index of the frame of each patch.
        boxes: (n, 4) top, left, height and width of each patch.

    Returns:
        the distinct frames (T,), ascending, and their patches (T, P, 4), padded with patches of size 0.
    """
    frames, slots = numbers.unique(return_inverse=True)
    found = [boxes[slots == slot] for slot in range(len(frames))]
    return frames, torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


@torch.no_grad()
def learned_mean(stage: Stage, batches: Iterable[Batch], world: World) -> Tensor | None:
    """Measures the policy's mean patch location (`mean_place`) over the clips of all processes.

    Only the glance network and the policy run. The result is (P, 2) if a clip has P locations that apply to all of its
    frames; None if no clip could be read.
    """
    found: list[Tensor] = []
    for batch in batches:
        if batch.valid.any():
            found.append(stage.learned_places(_readable(batch).to(world.device)).float().cpu())
    shares = [share for part in world.gather(found) for share in part]
    if not shares:
        return None
    where, network = torch.cat(shares), stage.chooser
    if network.chooses_cells:
        return network.mean_place(where)
    if network.place_per_frame or network.num_places == 1:
        return mean_place(where, network.boxes(where), network.frame_size)
    ranks = [where[:, rank : rank + 1] for rank in range(network.num_places)]
    return torch.stack([mean_place(rank, network.boxes(rank), network.frame_size) for rank in ranks])


def _readable(batch: Batch) -> Batch:
    """Returns the readable clips of a batch; if there are several views per video, the first."""
    batch = only(batch, batch.valid)
    return batch if batch.frames.ndim == 5 else replace(batch, frames=batch.frames[:, 0])
