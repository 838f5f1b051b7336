"""TokenFocus: a glance network scores the cells of a clip, and a vision transformer sees only the best of them.

Choosing tokens before a transformer, with one training for every number of tokens, follows FluxViT (arXiv 2503.14237)
and LookWhen (arXiv 2605.06809); the glance network and early exit follow AdaFocus. The network is a design of this
package, not a reimplementation of a released program.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost, Part
from adafocus.core.frames import segment_centers
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.network import EarlyExitNetwork, Reader, State
from adafocus.methods.tokens.encoder import TokenEncoder
from adafocus.policies.cells import CellScores, choose_cells


class TokenFocus(EarlyExitNetwork):
    """A vision transformer on chosen cells of a clip, best first, in groups of tokens with a prediction after each.

    A cell is a patch of the vision transformer in one of N candidate frames; the grid has M = N * rows * columns cells,
    numbered in this order, of which n are chosen. The prediction is the sum of the glance network's logits and of those
    of the transformer after a group. `Plan.where` is (B, n) int64, the chosen cells, best first; `Plan.frames` is
    (B, F), the frames that hold them, in temporal order, padded by repeating the last one.

    Args:
        glance: a backbone (see `adafocus.backbones`).
        focus: a vision transformer for frames of `frame_size`, as `TokenEncoder` needs it.
        num_classes: number of classes K.
        glance_segments: number of glance frames G.
        candidates: number of candidate frames N, a multiple of G; the glance frames are the middles of its G segments.
        frame_size: side S of the square frames in pixels.
        Others: see `AdaptiveNetwork`.
        policy_hidden: hidden width of the policy (`CellScores`).
        keep: share of the cells that is chosen in evaluation.
        groups: number of groups of tokens, of equal size; there is an exit after each.
        dropout: dropout probability of both heads.

    Attributes:
        keep: may be set at any time; the network is the same for every number of tokens.
        num_cells: number of cells M.
    """

    budgets = tuple(number / 5 for number in range(1, 31))
    glance_exit = True
    answers_at_glance = True
    chooses_frames = chooses_cells = True
    glance_fields = ("maps", "logits")
    focus_fields = ("logits",)
    parts = (
        Part("glance", ("glance_net", "glance_head")),
        Part("policy", ("policy",)),
        Part("focus", ("encoder", "focus_head")),
    )
    crop_values = 0  # patches are cut at integer pixels, without interpolation
    first: Tensor

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        glance_segments: int,
        candidates: int,
        frame_size: int = 224,
        policy_hidden: int = 64,
        keep: float = 0.1,
        groups: int = 4,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        if candidates % glance_segments:
            raise ValueError(f"{candidates} candidates are no multiple of {glance_segments} glance frames")
        encoder = TokenEncoder(focus, candidates)
        super().__init__(glance, focus, patch_size=encoder.patch_size, frame_size=frame_size, **options)
        del self.focus_net  # the encoder holds its modules; a second name would list them twice in the state dict
        self.encoder = encoder
        self.side = frame_size // encoder.patch_size
        if self.side**2 != encoder.area or frame_size % encoder.patch_size:
            raise ValueError(
                f"frames of {frame_size} pixels do not make the {encoder.area} patches of {encoder.patch_size} pixels "
                f"that the vision transformer has positions for"
            )
        self.glance_segments, self.candidates = glance_segments, candidates
        self.keep, self.groups, self.num_exits = keep, groups, 1 + groups
        self.num_cells = self.num_places = candidates * encoder.area
        if groups > self.num_cells:
            raise ValueError(f"{groups} groups are more than the {self.num_cells} cells")
        self.policy = CellScores(glance.width, (candidates, self.side, self.side), policy_hidden)
        self.glance_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.width, num_classes))
        self.register_buffer("first", torch.tensor(segment_centers(candidates, glance_segments)), persistent=False)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of glance frames and of frames with chosen cells, which are separate sets."""
        return {"glance_frames": self.glance_segments, "chosen_frames": min(self.candidates, self.count())}

    def count(self, keep: float | None = None) -> int:
        """Returns the number of cells n for a share of all cells (default `self.keep`), at least one per group."""
        return max(self.groups, round((self.keep if keep is None else keep) * self.num_cells))

    def sizes(self, count: int) -> list[int]:
        """Divides `count` tokens into groups of nearly equal size; returns their sizes."""
        ends = [count * group // self.groups for group in range(self.groups + 1)]
        return [end - start for start, end in zip(ends, ends[1:], strict=False)]

    def first_frames(self, frames: Tensor) -> Tensor:
        """Selects the glance frames (B, G, ...) from all candidates (B, N, ...)."""
        return frames[:, self.first]

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        return self.first_frames(frames)

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Selects the frames (B, F, ...) with chosen cells from all candidates (B, N, ...)."""
        return frames[torch.arange(len(frames), device=frames.device)[:, None], given(given(plan).frames)]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on frames (B, G, 3, S, S)."""
        return self.glance_of(self.glance_maps(frames), auxiliary)

    def glance_of(self, maps: Tensor, auxiliary: bool = False) -> GlanceOutput:
        features = maps.mean((-2, -1))
        with full_precision(features):
            return GlanceOutput(maps, features, self.glance_head(widen(features.mean(1))))

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Chooses cells and the frames that hold them.

        Unlike in the other methods, the gradient of the scores flows into the glance network, because it often cannot
        see the class itself and would otherwise learn nothing about which cells matter.
        """
        overrides = overrides or Overrides()
        if overrides.where is not None:
            return Plan(overrides.where, self.frames_of(overrides.where))
        scores = self.policy(glance.maps)
        cells = choose_cells(scores, overrides.count or self.count(), overrides.thresholds)
        return Plan(cells, self.frames_of(cells), scores=scores.gather(1, cells))

    def frames_of(self, cells: Tensor) -> Tensor:
        """Returns the distinct frames (B, F) of cells (B, n), ascending, the last one repeated; F = min(N, n)."""
        present = _marked(cells // self.encoder.area, self.candidates)
        return _listed(present, min(self.candidates, cells.shape[1]))

    def patches(self, frames: Tensor, slots: Tensor, cells: Tensor) -> Tensor:
        """Cuts the pixels (B, n, 3, P, P) of cells out of frames.

        Args:
            frames: (B, F, 3, S, S) normalized frames.
            slots: (B, n) index in `frames` of each cell's frame.
            cells: (B, n) numbers of the cells.
        """
        grid = frames.unflatten(-2, (self.side, -1)).unflatten(-1, (self.side, -1))
        position = cells % self.encoder.area
        batch = torch.arange(frames.shape[0], device=frames.device)[:, None]
        return grid[batch, slots, :, position // self.side, :, position % self.side]

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the vision transformer on the chosen cells of the frames (B, F, 3, S, S) that hold them."""
        cells = plan.where
        time = cells // self.encoder.area
        slots = (_marked(time, self.candidates).cumsum(1) - 1).gather(1, time)
        scores = plan.scores if auxiliary else None
        sizes = self.sizes(cells.shape[1])
        encoded = self.encoder(self.patches(frames, slots, cells), cells, sizes, scores=scores)
        first = given(glance.logits)
        steps = self.answers(encoded.features, first)
        exits = torch.cat([first[:, None], steps], 1)
        where = self.corners(cells)
        return Output(steps[:, -1], steps, where, time, exit_logits=exits, policy_loss=encoded.policy_loss)

    def answers(self, features: Tensor, first: Tensor) -> Tensor:
        """Predicts (B, groups, K) from the features after each group and the glance logits `first` (B, K).

        The glance logits get no gradient.
        """
        with full_precision(features):
            return self.focus_head(widen(features)) + first.detach()[:, None]

    def corners(self, cells: Tensor) -> Tensor:
        """Converts cells (B, n) to patch locations (B, n, 2), fractions of the largest offset."""
        position = cells % self.encoder.area
        return torch.stack([position // self.side, position % self.side], -1) / max(1, self.side - 1)

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the prediction (B, K) of the exit after the glance."""
        return given(glance.logits)

    def glance_cost(self, cost: Cost) -> int:
        return cost.of("glance")

    def mean_place(self, where: Tensor) -> Tensor:
        """Returns the share (M,) of clips that chose each cell, from the chosen cells (clips, n)."""
        return _marked(where.long(), self.num_cells).float().mean(0)

    def exit_costs(self, cost: Cost) -> list[int]:
        """Returns the multiply-adds of a video that stops at each exit; later groups also attend to earlier ones."""
        head = self.focus_head[-1].get_parameter("weight").numel()
        groups = [group + head for group in self.encoder.costs(self.sizes(self.count()))]
        return list(accumulate([cost.of("glance"), cost.of("policy") + groups[0], *groups[1:]]))

    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """See `EarlyExitNetwork.step`. At first `state` has the glance frames; `read` reads candidates, each once."""
        if not number:
            glance = self.glance(state["frames"])
            logits = given(glance.logits)
            return logits, {"maps": glance.maps, "features": glance.features, "logits": logits}
        first = (number - 1) * chunk
        if not first:
            cells = self.decide(GlanceOutput(state["maps"], state["features"])).where
            pixels = state["maps"].new_empty(*cells.shape, 3, self.patch_size, self.patch_size)
            known = torch.zeros(len(cells), self.candidates, dtype=torch.bool, device=cells.device)
            state = {"logits": state["logits"], "cells": cells, "pixels": pixels, "known": known}
        cells, pixels, past = state["cells"], state["pixels"], state.get("past")
        sizes = self.sizes(cells.shape[1])
        now, start = sizes[first : first + chunk], sum(sizes[:first])
        part = slice(start, start + sum(now))
        wanted = _marked(cells[:, part] // self.encoder.area, self.candidates) & ~state["known"]
        if wanted.any():
            self._read(pixels, read, wanted, cells)
        # Keys and values of all blocks are one tensor (B, 2 * blocks, ...), like every other entry of the state.
        pairs = None if past is None else [(past[:, n], past[:, n + 1]) for n in range(0, past.shape[1], 2)]
        encoded = self.encoder(pixels[:, part], cells[:, part], now, pairs)
        after = {**state, "known": state["known"] | wanted}
        after["past"] = torch.stack([one for pair in encoded.past for one in pair], 1)
        after |= {"where": self.corners(cells[:, : part.stop]), "looked": cells[:, : part.stop] // self.encoder.area}
        return self.answers(encoded.features[:, -1:], state["logits"])[:, 0], after

    def _read(self, pixels: Tensor, read: Reader, wanted: Tensor, cells: Tensor) -> None:
        """Reads the frames `wanted` (B', N) of clips and fills in the pixels (B', K, 3, P, P) of all cells in them."""
        rows = wanted.any(1).nonzero()[:, 0]
        wanted, cells = wanted[rows], cells[rows]
        listed = _listed(wanted, int(wanted.sum(1).max()))
        time = cells // self.encoder.area
        here = wanted.gather(1, time)
        slots = (wanted.cumsum(1) - 1).gather(1, time).clamp(min=0)
        found = self.patches(read(listed, rows), slots, cells)
        pixels[rows] = torch.where(here[..., None, None, None], found, pixels[rows])


def _marked(index: Tensor, size: int) -> Tensor:
    """Returns a mask (B, size) that is True at the indices (B, n)."""
    return torch.zeros(index.shape[0], size, dtype=torch.bool, device=index.device).scatter(1, index, True)


def _listed(marked: Tensor, count: int) -> Tensor:
    """Returns the indices (B, count) of the True values of a mask (B, size), ascending, the last one repeated."""
    size = marked.shape[1]
    order = torch.arange(size, device=marked.device)
    ordered = torch.where(marked, order, order + size).sort(1).values
    last = marked.sum(1, keepdim=True) - 1
    return ordered.gather(1, torch.minimum(order[None, :count], last))
