"""Base class of both Uni-AdaFocus networks: chooses frames, and rectangles of variable size in them.

`UniAdaFocus` has plain backbones (long videos; one rectangle per frame, a prediction after each step). `UniAdaFocusTSM`
has TSM backbones (short videos; one rectangle per video, two heads for each network).

Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, models/uni_adafocus.py of the experiments on
ActivityNet, FCVID and Mini-Kinetics, and the program for Something-Something and Jester.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import boxes, crop_rectangles
from adafocus.layers.precision import full_precision
from adafocus.methods.network import EarlyExitNetwork
from adafocus.policies.frames import FramePolicy, choose_frames
from adafocus.policies.scaled import ScaledPolicy, over_time


class UniAdaFocusBase(EarlyExitNetwork):
    """A glance and a focus network with a spatial policy (rectangles) and a temporal policy (frames).

    Args:
        glance, focus: backbones (see `adafocus.backbones`); with temporal modules in `UniAdaFocusTSM`.
        num_classes: number of classes K.
        glance_segments: number of glance frames G.
        focus_segments, candidates: number of focus frames F, and of candidate frames N that they are chosen from.
        patch_size: side in pixels of the square patches that rectangles are resized to, the focus network's input.
        smallest: smallest side of a rectangle in pixels of the frame (96 of 224 in all published models); None: 3/7 of
            the frame.
        frame_size: side of the square frames in pixels; also the largest side of a rectangle.
        spatial_hidden: hidden width of the spatial policy (`ScaledPolicy`).
        temporal_hidden, temperature: hidden width and softmax temperature of the temporal policy (`FramePolicy`).
        Others: see `AdaptiveNetwork`.

    Attributes:
        single_place: whether one rectangle applies to all frames of a video.
    """

    single_place = False
    chooses_frames = True
    glance_exit = True
    answers_at_glance = True
    decide_fields = ("maps", "features")

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        candidates: int,
        patch_size: int,
        smallest: float | None = None,
        frame_size: int = 224,
        spatial_hidden: int = 128,
        temporal_hidden: int = 64,
        temperature: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, patch_size=patch_size, frame_size=frame_size, **options)
        self.smallest = smallest or 3 * frame_size / 7
        if patch_size < self.smallest:
            raise ValueError(f"a patch of {patch_size} pixels is below the smallest rectangle of {self.smallest:g}")
        if focus_segments > candidates:
            raise ValueError(f"cannot choose {focus_segments} of {candidates} candidate frames")
        self.glance_segments, self.focus_segments, self.candidates = glance_segments, focus_segments, candidates
        map_size = glance.map_size(self.glance_size)
        self.spatial_policy = ScaledPolicy(
            glance.width, map_size, glance_segments if self.single_place else None, spatial_hidden
        )
        self.frame_policy = FramePolicy(glance.width, temporal_hidden, temperature)
        self.spatial_head = nn.Linear(glance.width, num_classes)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of glance frames and of chosen frames, which are separate sets."""
        return {"glance_frames": self.glance_segments, "chosen_frames": self.focus_segments}

    def native_places(self, corners: Tensor) -> Tensor:
        """Converts locations (B, N, 2) to rectangles (B, N, 4) of `patch_size` pixels, which are not resized."""
        size = (self.patch_size - self.smallest) / max(self.frame_size - self.smallest, 1e-6)
        return torch.cat([corners, torch.full_like(corners, size)], -1)

    def first_frames(self, frames: Tensor) -> Tensor:
        """Selects the glance frames, which are processed before the first exit."""
        return self.glance_frames(frames, Overrides())

    def boxes(self, where: Tensor) -> Tensor:
        """Converts rectangles (..., 4) to top, left, height and width in pixels of the frame."""
        return boxes(where, self.frame_size, smallest=self.smallest)

    def glance_cost(self, cost: Cost) -> int:
        """Returns the multiply-adds up to the exit after the glance."""
        return self.exit_costs(cost)[0]

    @abstractmethod
    def glance_positions(self, offsets: Tensor | None = None) -> Tensor:
        """Returns the indices (1 or B, G) of the glance frames in a training clip.

        Args:
            offsets: (B, G) int64 random position of each glance frame within its segment; None: the fixed positions of
                evaluation.
        """

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        return _take(frames, self.glance_positions(overrides.offsets))

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Selects the chosen candidates (B, F, ...) from a training clip (B, T, ...)."""
        return _take(frames, given(given(plan).frames) + self.first_candidate)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Chooses frames, and a rectangle in each of them (one for all with `single_place`)."""
        overrides = overrides or Overrides()
        rectangles = self.spatial_policy(glance.maps.detach())
        weights, choosing = self.frame_policy(glance.features.detach() if self.single_place else glance.features)
        frames = overrides.frames
        if frames is None:
            frames = choose_frames(choosing, self.candidates, self.focus_segments, overrides.thresholds)
        where = rectangles.detach() if overrides.where is None else overrides.where
        return Plan(self.of_frames(where, frames), frames, weights, rectangles)

    def even_frames(self, like: Tensor) -> Tensor:
        """Returns the frames (B, F) chosen with equal weights, which are evenly spaced; B is taken from `like`."""
        even = torch.full((len(like), self.glance_segments), 1.0, device=like.device)
        return choose_frames(even / even.shape[1], self.candidates, self.focus_segments)

    def of_frames(self, where: Tensor, frames: Tensor) -> Tensor:
        """Returns the rectangles (B, F, 4) of the chosen frames.

        Args:
            where: rectangles of all candidates (B, N, 4), or of the glance frames (B, G, 4), which are interpolated
                over time; with `single_place` (B, 1, 4), which is returned unchanged.
            frames: (B, F) indices of the chosen frames among the candidates.
        """
        if self.single_place:
            return where
        if where.shape[1] != self.candidates:
            where = over_time(where, self.candidates)
        return where.gather(1, frames[..., None].expand(-1, -1, 4))

    def patches(self, frames: Tensor, where: Tensor) -> Tensor:
        """Cuts rectangles (B, F or 1, 4) out of frames (B, F, 3, S, S) and resizes them to patches (B, F, 3, P, P)."""
        where = where.expand(-1, frames.shape[1], -1).flatten(0, 1)
        return crop_rectangles(frames.flatten(0, 1), where, self.patch_size, smallest=self.smallest).unflatten(
            0, frames.shape[:2]
        )

    def focus_features(self, patches: Tensor) -> Tensor:
        """Runs the focus network on patches (B, F, 3, P, P) and averages its maps to features (B, F, D)."""
        return self.focus_net(patches.flatten(0, 1)).mean((-2, -1)).unflatten(0, patches.shape[:2])

    @abstractmethod
    def answer(self, glance: GlanceOutput, features: Tensor, plan: Plan, auxiliary: bool) -> Output:
        """Combines the glance output and the focus features (B, F, D) into the prediction."""

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on the planned rectangles of the chosen frames (B, F, 3, S, S)."""
        return self.answer(glance, self.focus_features(self.patches(frames, plan.where)), plan, auxiliary)

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """Focuses at the plan's rectangles and at those in `diversity`, in one batch with common BatchNorm statistics.

        The repository's `AdaFocus.forward` does the same.
        """
        other = replace(plan, where=self.of_frames(diversity, given(plan.frames)))
        patches = torch.cat([self.patches(frames, plan.where), self.patches(frames, other.where)])
        first, second = self.focus_features(patches).chunk(2)
        return self.answer(glance, first, plan, auxiliary), self.answer(glance, second, other, auxiliary)

    def add_training_logits(self, output: Output, plan: Plan, glance: GlanceOutput) -> None:
        """Adds the auxiliary logits whose loss trains the spatial policy."""
        output.aux_spatial = self.spatial_logits(glance.maps, given(plan.rectangles))

    def spatial_logits(self, maps: Tensor, rectangles: Tensor) -> Tensor:
        """Computes logits (B, K) from the glance maps inside the rectangles; their loss trains the spatial policy."""
        side = maps.shape[-1]
        scale = side / self.frame_size
        cells = max(1, self.patch_size * side // self.frame_size)
        # The repository resizes to P // 32 cells (`get_patch_grid_scalexy`); the rounding also shrinks its rectangle.
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
    """Selects frames (B, n, ...) from (B, T, ...) by indices (1 or B, n)."""
    count = frames.shape[1]
    places = torch.arange(len(frames), device=frames.device)[:, None] * count + index
    return frames.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)
