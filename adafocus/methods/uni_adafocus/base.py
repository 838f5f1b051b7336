"""What both forms of Uni-AdaFocus share: glance at some frames, choose others and a rectangle of free size in each.

`UniAdaFocus` is on plain backbones (long videos; one rectangle a frame, an answer after each step), `UniAdaFocusTSM` on networks
that join frames (short videos; one rectangle a video, two heads a network).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adafocus.core.output import Output
from adafocus.layers.crop import boxes, crop_rectangles
from adafocus.layers.precision import full_precision
from adafocus.policies.frames import FramePolicy, choose_frames
from adafocus.policies.scaled import ScaledPolicy, over_time

Prepare = Callable[[Tensor], Tensor]


@dataclass
class Glance:
    """What the glance network saw: maps (B, G, D, h, w) and features (B, G, D), after dropout where the heads drop."""

    maps: Tensor
    features: Tensor
    predicted: Tensor | None = None  # (B, K), on TSM the part that the prediction adds
    learned: Tensor | None = None  # (B, G, K), on TSM what the glance network learns by
    steps: Tensor | None = None  # (B, G or 1, K), in the long-video form answers after the glance frames
    seen: Tensor | None = None  # (B, W), and the maximum that the later steps read


@dataclass
class Plan:
    """What the policies decided.

    Attributes:
        weights: (B, G) of the glance frames.
        frames: (B, F) int64, chosen candidates in temporal order.
        rectangles: (B, G, 4), or (B, 1, 4) on TSM: the spatial policy's own answer, with gradient.
        where: (B, F, 4), or (B, 1, 4) on TSM: rectangles of the chosen frames.
    """

    weights: Tensor
    frames: Tensor
    rectangles: Tensor
    where: Tensor


@dataclass
class Given:
    """What a stage gives to the network; what is None the network decides, as in evaluation.

    Attributes:
        offsets: (B, G) int64 place of each glance frame in its segment (plain form).
        thresholds: (B, F) uniform numbers of the frame choice.
        frames: (B, F) frames in place of the chosen ones.
        where, diversity: (B, N, 4) for all candidates, or (B, 1, 4) on TSM: rectangles in place of the policy's, and those
            of a second branch.
    """

    offsets: Tensor | None = None
    thresholds: Tensor | None = None
    frames: Tensor | None = None
    where: Tensor | None = None
    diversity: Tensor | None = None


class Choosing(nn.Module):
    """What both forms have: two networks, two policies, and an auxiliary head that the spatial policy learns by.

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
    """

    single_place = False  # one rectangle a video

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
        super().__init__()
        self.smallest = smallest or 3 * frame_size / 7
        if not self.smallest <= patch_size <= frame_size:
            raise ValueError(
                f"a patch of {patch_size} pixels must be from {self.smallest:g} (patch.smallest) to the {frame_size} of a frame"
            )
        if focus_segments > candidates:
            raise ValueError(f"cannot choose {focus_segments} of {candidates} candidate frames")
        self.glance, self.focus = glance, focus
        self.glance_segments, self.focus_segments, self.candidates = glance_segments, focus_segments, candidates
        self.patch_size, self.frame_size = patch_size, frame_size
        self.glance_size, self.glance_resize = glance_size or frame_size, glance_resize
        map_size = glance.map_size(self.glance_size)
        self.spatial_policy = ScaledPolicy(
            glance.width, map_size, glance_segments if self.single_place else None, spatial_hidden
        )
        self.frame_policy = FramePolicy(glance.width, temporal_hidden, temperature)
        self.spatial_head = nn.Linear(glance.width, num_classes)

    @property
    def crop_values(self) -> int:
        """Values that are blended to cut the patches of a video."""
        return self.focus_segments * 3 * self.patch_size**2

    @property
    def native(self) -> float:
        """The size in [0, 1] of a rectangle with the patch's own side, which is not resampled."""
        return (self.patch_size - self.smallest) / max(self.frame_size - self.smallest, 1e-6)

    def boxes(self, where: Tensor) -> Tensor:
        """(..., 4) rectangles to top, left, height and width in pixels of the frame."""
        return boxes(where, self.frame_size, smallest=self.smallest)

    @abstractmethod
    def look(self, frames: Tensor, auxiliary: bool = True) -> Glance:
        """(B, G, 3, S, S) glance frames through the glance network."""

    @abstractmethod
    def answer(self, glance: Glance, features: Tensor, auxiliary: bool = True) -> Output:
        """What was seen in both networks to an answer; features (B, F, D) of the patches."""

    @abstractmethod
    def glance_frames(self, offsets: Tensor | None = None) -> Tensor:
        """Which frames of a training clip the glance network sees."""

    @property
    @abstractmethod
    def first_candidate(self) -> int:
        """Where the candidates begin in a training clip."""

    def plan(self, glance: Glance, given: Given | None = None) -> Plan:
        """Frames and rectangles."""
        given = given or Given()
        rectangles = self.spatial_policy(glance.maps.detach())
        weights, choosing = self.frame_policy(glance.features.detach() if self.single_place else glance.features)
        frames = given.frames
        if frames is None:
            frames = choose_frames(choosing, self.candidates, self.focus_segments, given.thresholds)
        where = rectangles.detach() if given.where is None else given.where
        return Plan(weights, frames, rectangles, self._of_frames(where, frames))

    def _of_frames(self, where: Tensor, frames: Tensor) -> Tensor:
        """The rectangles of chosen frames."""
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
        return self.focus(patches.flatten(0, 1)).mean((-2, -1)).unflatten(0, patches.shape[:2])

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

    def forward(
        self, frames: Tensor, given: Given | None = None, auxiliary: bool = True, prepare: Prepare | None = None
    ) -> Output:
        """A clip that holds all candidates, as training needs it.

        Args:
            frames: (B, T, 3, S, S) normalized frames; with `prepare` anything of (B, T, ...).
            given: see `Given`.
            auxiliary: whether the logits that only training needs are wanted.
            prepare: makes chosen frames (B, n, ...) into normalized ones (B, n, 3, S, S), so that the others need not be.
        """
        given, prepare = given or Given(), prepare or _as_is
        glance = self.look(prepare(_take(frames, self.glance_frames(given.offsets))), auxiliary)
        plan = self.plan(glance, given)
        chosen = prepare(_take(frames, plan.frames + self.first_candidate))
        patches = self.patches(chosen, plan.where)
        other = None
        if given.diversity is None:
            output = self.answer(glance, self.focus_features(patches), auxiliary)
        else:  # both branches in one pass, with one set of batch statistics, as in the released code
            other = self._of_frames(given.diversity, plan.frames)
            features = self.focus_features(torch.cat([patches, self.patches(chosen, other)])).chunk(2)
            output = self.answer(glance, features[0], auxiliary)
            output.diversity = self.answer(glance, features[1], auxiliary)
            output.diversity.where = other
        output.where, output.frames = plan.where, plan.frames
        output.weights, output.rectangles = plan.weights, plan.rectangles
        if auxiliary:
            output.spatial = self.spatial_logits(glance.maps, plan.rectangles)
        return output


def _as_is(frames: Tensor) -> Tensor:
    return frames


def _take(frames: Tensor, index: Tensor) -> Tensor:
    """(B, T, ...) at (1 or B, n) to (B, n, ...)."""
    return frames[torch.arange(len(frames), device=frames.device)[:, None], index]
