"""Uni-AdaFocus for long videos, on plain backbones: chooses frames and rectangles, and predicts after every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost, Part
from adafocus.core.frames import segment_centers
from adafocus.core.output import GlanceOutput, Output, Plan, given
from adafocus.layers.heads import PooledStepClassifier
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.network import Reader, State
from adafocus.methods.uni_adafocus.base import UniAdaFocusBase
from adafocus.policies.scaled import TWICE


class UniAdaFocus(UniAdaFocusBase):
    """Uni-AdaFocus for long videos: glance frames are among the candidates, and there is a prediction after each step.

    Args:
        classifier_width, dropout: hidden width and dropout probability of the step classifiers.
        head_dropout: dropout probability of the auxiliary heads of both networks.
        Others: see `UniAdaFocusBase`. `candidates` must be a multiple of `glance_segments`.

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, class `AdaFocus` in models/uni_adafocus.py.
    """

    budgets = tuple(number / 20 for number in range(1, 20))
    glance_fields = ("maps", "features", "running_max")
    focus_fields = ("running_max",)
    step_classifiers = ("glance_steps", "focus_steps")
    parts = (
        Part("glance", ("glance_net",)),
        Part("frame policy", ("frame_policy",)),
        Part("spatial policy", ("spatial_policy",)),
        Part("focus", ("focus_net",)),
        Part("head", ("glance_steps", "focus_steps")),
        Part("glance", ("glance_head",), auxiliary=True, published=False),
        Part("focus", ("focus_head",), auxiliary=True, published=False),
        Part("spatial", ("spatial_head",), auxiliary=True, published=False),
    )

    glance_centers: Tensor

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        classifier_width: int = 4096,
        dropout: float = 0.2,
        head_dropout: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, num_classes=num_classes, **options)
        self.num_places, self.num_exits = self.candidates, 1 + self.focus_segments
        if self.candidates % self.glance_segments:
            raise ValueError(f"{self.candidates} candidates are no multiple of {self.glance_segments} glance frames")
        centers = torch.tensor([segment_centers(self.candidates, self.glance_segments)])
        self.register_buffer("glance_centers", centers, persistent=False)
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(focus.width, num_classes))
        steps = (num_classes, self.glance_segments, classifier_width, dropout)
        # The repository runs the glance classifier twice per training batch; only dropout differs between the two
        # calls.
        self.glance_steps = PooledStepClassifier(glance.width, *steps, momentum=TWICE)
        steps = (num_classes, self.focus_segments, classifier_width, dropout)
        self.focus_steps = PooledStepClassifier(focus.width, *steps, beside=classifier_width)

    def glance_positions(self, offsets: Tensor | None = None) -> Tensor:
        """Returns the indices of the glance frames: one candidate of each segment, in evaluation its center."""
        if offsets is None:
            return self.glance_centers
        length = self.candidates // self.glance_segments
        return torch.arange(self.glance_segments, device=offsets.device) * length + offsets

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on frames (B, G, 3, S, S); `steps` has the last prediction, or all if `auxiliary`."""
        return self.glance_of(self.glance_maps(frames), auxiliary)

    def glance_of(self, maps: Tensor, auxiliary: bool = False) -> GlanceOutput:
        features = maps.mean((-2, -1))
        steps, running_max = self.glance_steps(features, answers=None if auxiliary else 1)
        return GlanceOutput(maps, features, steps=steps, running_max=running_max)

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the prediction (B, K) after the last glance frame."""
        return given(glance.steps)[:, -1]

    def answer(self, glance: GlanceOutput, features: Tensor, plan: Plan, auxiliary: bool) -> Output:
        """Combines the glance output and the focus features (B, F, D) into the prediction.

        `steps` holds the predictions after the glance frames (the last only, unless `auxiliary`), then those after each
        patch. An exported program has no `glance.steps`; then `steps` holds only the latter.
        """
        focused, _ = self.focus_steps(features, beside=glance.running_max)
        steps = focused if glance.steps is None else torch.cat([glance.steps, focused], 1)
        output = Output(
            steps[:, -1],
            steps,
            plan.where,
            plan.frames,
            plan.weights,
            plan.rectangles,
            exit_logits=steps[:, -self.num_exits :],
        )
        if auxiliary:
            with full_precision(features):
                output.aux_glance = output.per_frame = self.glance_head(widen(glance.features))
                output.aux_focus = self.focus_head(widen(features))
        return output

    def exit_costs(self, cost: Cost) -> list[int]:
        first = cost.of("glance") + self.glance_steps.cost(self.glance_segments, 1)
        step = cost.of("focus", "crop") / self.focus_segments + self.focus_steps.cost(1, 1)
        planned = first + cost.of("frame policy", "spatial policy")
        return [first, *(round(planned + k * step) for k in range(1, self.num_exits))]

    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """See `EarlyExitNetwork.step`. At first `state` has the glance frames; `read` reads candidates."""
        if not number:
            glance = self.glance(state["frames"])
            beside = given(glance.running_max)
            return given(glance.steps)[:, -1], {"maps": glance.maps, "features": glance.features, "beside": beside}
        first = (number - 1) * chunk
        if not first:
            plan = self.decide(GlanceOutput(state["maps"], state["features"]))
            state = {"beside": state["beside"], "plan": plan.where, "frames": given(plan.frames)}
        part = slice(first, first + chunk)
        patches = self.patches(read(state["frames"][:, part]), state["plan"][:, part])
        features = self.focus_features(patches)
        logits, running_max = self.focus_steps(
            features, state.get("running_max"), first, beside=state["beside"], answers=1
        )
        looked = {"where": state["plan"][:, : part.stop], "looked": state["frames"][:, : part.stop]}
        return logits[:, -1], {**state, "running_max": running_max, **looked}
