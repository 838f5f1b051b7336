"""AdaFocus V2 on plain backbones: glance at every frame, focus on one patch per frame, predict after every frame.

Source: arXiv 2112.14238 section 3; LeapLabTHU/AdaFocusV2, class `AdaFocus` in models/adafocus_v2.py of the experiments
on ActivityNet, FCVID and Mini-Kinetics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost, Part
from adafocus.core.frames import coarse_to_fine
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import crop
from adafocus.layers.heads import PooledStepClassifier
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.adafocus_v2.options import ORDERS
from adafocus.methods.network import EarlyExitNetwork, Prepare, Reader, State, as_they_are, frames_of_step
from adafocus.policies.affine import AffinePolicy
from adafocus.policies.heat_map import HeatMapPolicy


class AdaFocusV2(EarlyExitNetwork):
    """AdaFocus V2 for untrimmed videos.

    Args:
        glance, focus: backbones (see `adafocus.backbones`).
        num_classes: number of classes K.
        segments: number of frames T of a clip; both networks see all of them.
        policy_hidden: hidden width of the policy's GRU.
        classifier_width, dropout: hidden width and dropout probability of the classifier.
        head_dropout: dropout probability of the auxiliary heads.
        order: "coarse_to_fine" or "temporal", the order in which frames are processed. `glance`, `decide` and `focus`
            take and return frames and steps in this order; `forward` takes frames in temporal order.
        policy: factory of the policy, called as `adafocus.policies` describes.
        Others: see `AdaptiveNetwork`.
    """

    budgets, first_power = tuple(number / 10 for number in range(5, 40)), 1
    shares_frames = True
    answers_at_glance = True
    step_classifiers = ("classifier",)
    parts: ClassVar[tuple[Part, ...]] = (
        Part("glance", ("glance_net",)),
        Part("policy", ("policy",)),
        Part("focus", ("focus_net",)),
        Part("head", ("classifier",)),
        Part("glance", ("glance_head",), auxiliary=True),
        Part("focus", ("focus_head",), auxiliary=True),
    )

    order: Tensor

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        segments: int,
        policy_hidden: int = 2048,
        classifier_width: int = 4096,
        dropout: float = 0.2,
        head_dropout: float = 0.2,
        order: str = "coarse_to_fine",
        policy: Callable[..., nn.Module] = AffinePolicy,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, **options)
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}")
        self.segments = self.num_places = self.num_exits = segments
        self.policy = policy(
            channels=glance.width, map_size=glance.map_size(self.glance_size), segments=segments, hidden=policy_hidden
        )
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(focus.width, num_classes))
        self.classifier = PooledStepClassifier(
            glance.width + focus.width, num_classes, segments, classifier_width, dropout
        )
        steps = coarse_to_fine(segments) if order == "coarse_to_fine" else list(range(segments))
        self.register_buffer("order", torch.tensor(steps), persistent=False)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of frames of a clip, by name of the set; both networks see the same set."""
        return {"frames": self.segments}

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on frames (B, T', 3, S, S) in processing order, all frames of a clip or some."""
        return self.glance_of(self.glance_maps(frames), auxiliary)

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the mean (B, K) of the auxiliary logits of the frames."""
        learned = glance.aux_logits
        return (_head(self.glance_head, glance.features) if learned is None else learned).mean(1)

    def glance_of(self, maps: Tensor, auxiliary: bool = False) -> GlanceOutput:
        features = maps.mean((-2, -1))
        return GlanceOutput(maps, features, aux_logits=_head(self.glance_head, features) if auxiliary else None)

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None, state: Tensor | None = None) -> Plan:
        """Chooses one patch location per frame.

        Args:
            glance: output for some or all frames of a clip, in processing order.
            overrides: locations that replace the policy's.
            state: `Plan.state` after the frames before these; None for the first frames.
        """
        whole = glance.maps.shape[1] == self.segments
        # Not len(), which would fix the batch size of an exported program.
        frames = self.order.expand(glance.maps.shape[0], -1) if whole else None
        if overrides is not None and overrides.where is not None:
            return Plan(overrides.where, frames)
        if isinstance(self.policy, HeatMapPolicy):
            where, scores = self.policy(glance.maps.detach())
            return Plan(where, frames, scores=scores)
        where, state = self.policy(glance.maps.detach(), None if state is None else state[None])
        return Plan(where, frames, state=None if state is None else state[0])

    def focus(
        self,
        frames: Tensor,
        plan: Plan,
        glance: GlanceOutput,
        auxiliary: bool = False,
        *,
        first: int = 0,
        running_max: Tensor | None = None,
        answers: int | None = None,
    ) -> Output:
        """Runs the focus network and the classifier on T' steps, all steps of a clip or some.

        Args:
            frames: (B, T', 3, S, S) the frames of these steps, in processing order.
            plan, glance: decisions and glance output for the same frames.
            auxiliary: whether to compute the auxiliary logits.
            first: number of steps of the clip before these.
            running_max: `Output.running_max` after the earlier steps.
            answers: number of steps, counted from the last, to compute predictions for; None: all.
        """
        patches = crop(frames.flatten(0, 1), plan.where.flatten(0, 1), self.patch_size)
        features = self.focus_net(patches).mean((-2, -1)).unflatten(0, plan.where.shape[:2])
        joined = torch.cat([glance.features, features], -1)
        steps, running_max = self.classifier(joined, running_max, first, answers=answers)
        learned = _head(self.focus_head, features) if auxiliary else None
        return Output(
            steps[:, -1],
            steps,
            plan.where,
            plan.frames,
            scores=plan.scores,
            aux_glance=glance.aux_logits if auxiliary else None,
            aux_focus=learned,
            place_logits=learned,
            exit_logits=steps,
            running_max=running_max,
        )

    def forward(
        self,
        frames: Tensor,
        overrides: Overrides | None = None,
        auxiliary: bool = True,
        prepare: Prepare = as_they_are,
    ) -> Output:
        """Runs a whole clip as `AdaptiveNetwork.forward`; the pass at `overrides.diversity` comes second, as in the
        repository.
        """
        if frames.shape[1] != self.segments:
            raise ValueError(f"this network takes {self.segments} frames a clip, not {frames.shape[1]}")
        return super().forward(frames, overrides, auxiliary, prepare)

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """Reorders all frames of a clip from temporal to processing order."""
        return frames.index_select(1, self.order)

    def first_frames(self, frames: Tensor) -> Tensor:
        """Selects the first frame in processing order."""
        return frames[:, self.order[:1]]

    def exit_costs(self, cost: Cost) -> list[int]:
        """Returns the multiply-adds of a video that stops at each exit; every frame costs the same."""
        whole = cost.of("glance", "policy", "focus", "head", "crop")
        return [round(whole * (step + 1) / self.segments) for step in range(self.segments)]

    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """See `EarlyExitNetwork.step`. At first `state` has the first frame in processing order (B, 1, 3, S, S)."""
        first = number * chunk
        frames = frames_of_step(state, self.order[first : first + chunk], read)
        glance = self.glance(frames)
        plan = self.decide(glance, state=state.get("policy"))
        running_max = state.get("running_max")
        output = self.focus(frames, plan, glance, first=first, running_max=running_max, answers=1)
        where = torch.cat([state["where"], plan.where], 1) if first else plan.where
        after = {"running_max": given(output.running_max), "where": where}
        after["looked"] = self.order[: where.shape[1]].expand(len(where), -1)
        return output.logits, after if plan.state is None else {**after, "policy": plan.state}


def _head(head: nn.Module, features: Tensor) -> Tensor:
    """Applies an auxiliary head in float32, even under autocast."""
    with full_precision(features):
        return head(widen(features))
