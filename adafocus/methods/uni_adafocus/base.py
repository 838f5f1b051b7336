"""What both forms of Uni-AdaFocus share: glance at some frames, choose others and a rectangle of free size in each.

`UniAdaFocus` is on plain backbones (long videos; one rectangle a frame, an answer after each step), `UniAdaFocusTSM` on networks
that join frames (short videos; one rectangle a video, two heads a network).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.crop import boxes, crop_rectangles
from adafocus.layers.precision import full_precision
from adafocus.methods.network import EarlyExitNetwork
from adafocus.policies.frames import FramePolicy, choose_frames
from adafocus.policies.scaled import ScaledPolicy, over_time


class UniAdaFocusBase(EarlyExitNetwork):
    """Two networks, two policies, and an auxiliary head that the spatial policy learns by.

    Args:
        glance, focus: backbones (see `adafocus.backbones`), with temporal modules in the TSM form.
        num_classes: K.
        glance_segments, focus_segments, candidates: G, F, N. F of N candidate frames are chosen.
        patch_size: side of what the focus network sees, in pixels.
        smallest: smallest side of a rectangle, in pixels of the frame (96 at 224 in all published models); None: 3/7 of the
            frame.
        frame_size: side of the square frames; also the largest side of a rectangle.
        glance_size, glance_resize: see `AdaFocusV2`.
        spatial_hidden, temporal_hidden, temperature: of the policies.

    Attributes:
        single_place: whether one rectangle serves all frames of a video.
    """

    single_place = False
    chooses_frames = True
    glance_exit = True
    decide_fields = ("maps", "features")

    def __init__(
        self,
        glance: nn.Module,
        focus: nn.Module,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        candidates: int,
        patch_size: int,
        smallest: float | None = None,
        frame_size: int = 224,
        glance_size: int | None = None,
        glance_resize: str = "aligned",
        spatial_hidden: int = 128,
        temporal_hidden: int = 64,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(glance, focus, patch_size=patch_size, frame_size=frame_size)
        self.smallest = smallest or 3 * frame_size / 7
        if patch_size < self.smallest:
            raise ValueError(f"a patch of {patch_size} pixels is below the smallest rectangle of {self.smallest:g}")
        if focus_segments > candidates:
            raise ValueError(f"cannot choose {focus_segments} of {candidates} candidate frames")
        self.glance_segments, self.focus_segments, self.candidates = glance_segments, focus_segments, candidates
        self.glance_size, self.glance_resize = glance_size or frame_size, glance_resize
        map_size = glance.map_size(self.glance_size)
        self.spatial_policy = ScaledPolicy(
            glance.width, map_size, glance_segments if self.single_place else None, spatial_hidden
        )
        self.frame_policy = FramePolicy(glance.width, temporal_hidden, temperature)
        self.spatial_head = nn.Linear(glance.width, num_classes)

    @property
    def frame_sets(self) -> dict[str, int]:
        """The glance frames, and the candidates that were chosen."""
        return {"glance_frames": self.glance_segments, "chosen_frames": self.focus_segments}

    def native_places(self, corners: Tensor) -> Tensor:
        """(B, N, 2) corners to rectangles (B, N, 4) with the patch's own side, which are not resampled."""
        size = (self.patch_size - self.smallest) / max(self.frame_size - self.smallest, 1e-6)
        return torch.cat([corners, torch.full_like(corners, size)], -1)

    def first_frames(self, frames: Tensor) -> Tensor:
        """The glance frames."""
        return self.glance_frames(frames, Overrides())

    def boxes(self, where: Tensor) -> Tensor:
        """(..., 4) rectangles to top, left, height and width in pixels of the frame."""
        return boxes(where, self.frame_size, smallest=self.smallest)

    def glance_answer(self, output: Output) -> Tensor:
        """(B, K): the answer of the exit after the glance."""
        return output.exit_logits[:, 0]

    @abstractmethod
    def glance_positions(self, offsets: Tensor | None = None) -> Tensor:
        """(1 or B, G): which frames of a training clip the glance network sees."""

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """See `AdaptiveNetwork.glance_frames`."""
        return _take(frames, self.glance_positions(overrides.offsets))

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """The chosen candidates."""
        return _take(frames, plan.frames + self.first_candidate)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Frames and rectangles."""
        overrides = overrides or Overrides()
        rectangles = self.spatial_policy(glance.maps.detach())
        weights, choosing = self.frame_policy(glance.features.detach() if self.single_place else glance.features)
        frames = overrides.frames
        if frames is None:
            frames = choose_frames(choosing, self.candidates, self.focus_segments, overrides.thresholds)
        where = rectangles.detach() if overrides.where is None else overrides.where
        return Plan(self.of_frames(where, frames), frames, weights, rectangles)

    def even_frames(self, like: Tensor) -> Tensor:
        """(B, F) the frames that are chosen when all glance frames of (B, ...) clips weigh the same."""
        even = torch.full((len(like), self.glance_segments), 1.0, device=like.device)
        return choose_frames(even / even.shape[1], self.candidates, self.focus_segments)

    def of_frames(self, where: Tensor, frames: Tensor) -> Tensor:
        """The rectangles of chosen frames (B, F): from those of all candidates or glance frames, or the only one."""
        if self.single_place:
            return where
        if where.shape[1] != self.candidates:
            where = over_time(where, self.candidates)
        return where.gather(1, frames[..., None].expand(-1, -1, 4))

    def patches(self, frames: Tensor, where: Tensor) -> Tensor:
        """(B, F, 3, S, S) frames at (B, F or 1, 4) rectangles to patches (B, F, 3, P, P)."""
        where = where.expand(-1, frames.shape[1], -1).flatten(0, 1)
        return crop_rectangles(frames.flatten(0, 1), where, self.patch_size, smallest=self.smallest).unflatten(
            0, frames.shape[:2]
        )

    def focus_features(self, patches: Tensor) -> Tensor:
        """(B, F, 3, P, P) to features (B, F, D)."""
        return self.focus_net(patches.flatten(0, 1)).mean((-2, -1)).unflatten(0, patches.shape[:2])

    @abstractmethod
    def answer(self, glance: GlanceOutput, features: Tensor, plan: Plan, auxiliary: bool) -> Output:
        """What both networks saw to an output; features (B, F, D) of the patches."""

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """(B, F, 3, S, S) chosen frames at their rectangles."""
        return self.answer(glance, self.focus_features(self.patches(frames, plan.where)), plan, auxiliary)

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """Both branches in one pass, with one set of batch statistics, as in the released code."""
        other = replace(plan, where=self.of_frames(diversity, plan.frames))
        patches = torch.cat([self.patches(frames, plan.where), self.patches(frames, other.where)])
        first, second = self.focus_features(patches).chunk(2)
        return self.answer(glance, first, plan, auxiliary), self.answer(glance, second, other, auxiliary)

    def add_training_logits(self, output: Output, plan: Plan, glance: GlanceOutput) -> None:
        """Adds the logits that the spatial policy learns by."""
        output.aux_spatial = self.spatial_logits(glance.maps, plan.rectangles)

    def spatial_logits(self, maps: Tensor, rectangles: Tensor) -> Tensor:
        """(B, K): the class by what the rectangles cut out of the glance maps. The spatial policy learns by them alone."""
        side = maps.shape[-1]
        scale = side / self.frame_size
        cells = max(1, self.patch_size * side // self.frame_size)
        # The released code resamples P // 32 cells, and its rectangle shrinks with what the division drops.
        shrunk = scale if cells == self.patch_size * scale else cells / self.patch_size
        where = rectangles.expand(-1, maps.shape[1], -1).flatten(0, 1)
        cut = crop_rectangles(
            maps.detach().flatten(0, 1),
            where,
            cells,
            smallest=self.smallest * shrunk,
            largest=self.frame_size * shrunk,
        )
        with full_precision(maps):
            return self.spatial_head(cut.mean((-2, -1)).unflatten(0, maps.shape[:2]).mean(1))


def _take(frames: Tensor, index: Tensor) -> Tensor:
    """(B, T, ...) at (1 or B, n) to (B, n, ...)."""
    return frames[torch.arange(len(frames), device=frames.device)[:, None], index]
