"""Base class of the stages of all methods with a glance and a focus network: random numbers, controls, evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from adafocus.core.batch import Batch
from adafocus.core.output import Output, Overrides, given
from adafocus.core.rng import uniform
from adafocus.core.stage import Stage
from adafocus.core.variants import GLANCE_ALONE, Variant
from adafocus.methods.network import AdaptiveNetwork


class AdaptiveStage(Stage):
    """A stage of an `AdaptiveNetwork`.

    Attributes:
        seed: seed of the run; all random numbers are functions of (seed, purpose, epoch, index).
        random_draw: the purpose (see `core.rng`) of the random numbers for random patch locations.
    """

    model: AdaptiveNetwork
    seed: int
    random_draw = "diversity"

    def draws(self, purpose: str, batch: Batch, shape: tuple[int, ...]) -> Tensor:
        """Returns uniform random numbers (B, *shape) for one purpose (see `core.rng`), on the device of the batch."""
        drawn = uniform(self.seed, purpose, batch.epoch, batch.index.tolist(), shape)
        return drawn.to(batch.frames.device, non_blocking=True)

    def places(self, choice: str, batch: Batch) -> Tensor | None:
        """Returns patch locations (B, num_places, 2 or 4) for a value of `Variant.where`; None: the network decides."""
        places = self.model.num_places
        if choice in ("learned", "motion"):
            return None
        if choice == "constant":
            return given(self.constant_place).to(batch.frames.device).expand(len(batch), places, -1)
        if choice == "center":
            corners = torch.full((len(batch), places, 2), 0.5, device=batch.frames.device)
        else:
            corners = self.draws(self.random_draw, batch, (places, 2))
        return self.model.native_places(corners)

    def overrides(self, variant: Variant, batch: Batch) -> Overrides:
        """Returns the decisions that replace those of the policies in an evaluation variant."""
        frames = self.model.even_frames(batch.frames) if variant.when == "spread" else None
        return Overrides(self.places(variant.where, batch), frames=frames, motion=variant.where == "motion")

    @torch.no_grad()
    def evaluate(self, batch: Batch, variants: tuple[Variant, ...]) -> dict[Variant, Output]:
        """Predicts in each variant; the glance network runs once for all of them."""
        return self.answers(batch, variants, GLANCE_ALONE in variants)

    @torch.no_grad()
    def exit_logits(self, batch: Batch) -> Tensor:
        """Returns the predictions (B, E, K) at all exits."""
        return given(self.answers(batch, self.variants[:1], True)[self.variants[0]].exit_logits)

    def answers(self, batch: Batch, variants: tuple[Variant, ...], auxiliary: bool) -> dict[Variant, Output]:
        """Returns outputs by variant; `auxiliary` adds to the first the logits that only training and controls need."""
        model = self.model
        model.eval()
        seen = self.glance_frames(batch)
        glance, fixed = model.glance(seen, auxiliary), None
        if not model.chooses_frames:
            fixed = seen if model.shares_frames else self.normalize(model.focus_frames(batch.frames))
        rows = torch.arange(len(batch), device=batch.frames.device)
        answers: dict[Variant, Output] = {}
        for variant in variants:
            if variant == GLANCE_ALONE:
                continue
            plan = model.decide(glance, self.overrides(variant, batch))
            chosen = None if fixed is not None else self.other_frames(batch, rows, given(plan.frames))
            focused = given(fixed) if chosen is None else self.normalize(chosen)
            answers[variant] = model.focus(focused, plan, glance, auxiliary and not answers)
            answers[variant].focus_frames = chosen
        if GLANCE_ALONE in variants:
            answers[GLANCE_ALONE] = Output(model.glance_answer(glance))
        return answers

    def glance_frames(self, batch: Batch) -> Tensor:
        """Returns the normalized frames of a batch that the glance network sees."""
        if self.model.chooses_frames:
            return self.normalize(self.first_frames(batch))
        return super().glance_frames(batch)

    def first_frames(self, batch: Batch) -> Tensor:
        """Returns the frames (B, n, H, W, 3) uint8 that are processed before the first exit."""
        return batch.frames if batch.source is not None else self.model.first_frames(batch.frames)

    def other_frames(self, batch: Batch, rows: Tensor, candidates: Tensor) -> Tensor:
        """Returns candidates (B', n, H, W, 3) uint8 of some clips, decoded now if the batch does not hold them.

        Args:
            batch: the batch.
            rows: (B',) indices of clips in the batch, on any device.
            candidates: (B', n) positions among each clip's candidates.
        """
        if batch.source is not None:
            return batch.read(rows, candidates)
        places = rows.to(batch.frames.device, non_blocking=True)[:, None] * batch.frames.shape[1]
        places = places + candidates + self.model.first_candidate
        # Whole frames of a list of frames, which is much faster than indexing both dimensions.
        return batch.frames.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, candidates.shape)
