"""AdaFocus V1 on plain backbones: glance at every frame, focus on one patch per frame that a policy chooses.

Source: arXiv 2105.03245 section 3; blackfeather-wang/AdaFocus, models/gfv_net.py and models/ppo.py of the experiments
on ActivityNet, FCVID and Mini-Kinetics.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.backbones import Backbone
from adafocus.core.cost import Cost, Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import cut
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.network import (
    AdaptiveNetwork,
    EarlyExitNetwork,
    Prepare,
    Reader,
    State,
    as_they_are,
    frames_of_step,
)
from adafocus.policies.actor_critic import Decision, GaussianPolicy, GridPolicy


class StepClassifier(nn.Module):
    """Classifier that predicts after every step: a GRU over the steps of a video and a linear layer on its states."""

    def __init__(self, channels: int, num_classes: int, hidden: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps features (B, S, D) of S steps to logits (B, S, K) and GRU states (B, S, hidden) after each step.

        `before` (B, hidden) is the state after earlier steps; None if there are none.
        """
        with full_precision(features):
            states, _ = self.gru(widen(features), None if before is None else before[None].contiguous())
            return self.head(self.dropout(states)), states

    def counterfactual(self, features: Tensor, states: Tensor) -> Tensor:
        """Logits (B, S, K) of every step t if only that step had the input `features[:, t]`.

        Args:
            features: (B, S, D) the replaced inputs.
            states: (B, S, hidden) from `forward` on the real inputs; step t starts from the state after step t - 1.
        """
        with full_precision(features):
            before = functional.pad(states[:, :-1], (0, 0, 1, 0)).flatten(0, 1)[None]
            after, _ = self.gru(widen(features).flatten(0, 1)[:, None], before.contiguous())
            return self.head(self.dropout(after[:, 0])).unflatten(0, features.shape[:2])


class ReinforcedNetwork(AdaptiveNetwork):
    """Base class of both AdaFocus V1 networks: has a stochastic policy, and the calls that the training stages need.

    Attributes:
        single_networks: by stage name ("glance", "focus"), the submodules that are trained when that network is trained
            alone: its backbone and head.
        learning_modules: by part name, the submodules that the other stages train.
    """

    policy: GridPolicy | GaussianPolicy
    single_networks: ClassVar[dict[str, tuple[str, ...]]]
    learning_modules: ClassVar[dict[str, tuple[str, ...]]] = {
        "focus": ("focus_net",),
        "classifier": ("classifier",),
        "policy": ("policy",),
    }

    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Returns the policy's most probable patch locations, or those in `overrides`."""
        if overrides is not None and overrides.where is not None:
            return Plan(overrides.where)
        return Plan(self.policy.where(self.policy.best(self.policy(glance.maps))))

    def forward(  # type: ignore[override]  # its parts go through it too, see below
        self,
        frames: Tensor | None,
        overrides: Overrides | None = None,
        auxiliary: bool = False,
        prepare: Prepare = as_they_are,
        *,
        alone: str | None = None,
        maps: Tensor | None = None,
    ) -> Output | Decision:
        """Runs the whole network as `AdaptiveNetwork.forward`, or a single part if `alone` or `maps` is given.

        Single parts go through `forward` because DistributedDataParallel averages gradients of forward calls only.

        Args:
            frames: a clip; None with `maps`.
            overrides, auxiliary, prepare: arguments of `AdaptiveNetwork.forward`.
            alone: "glance" or "focus": runs only this network, on whole frames, and returns its `Output`.
            maps: `GlanceOutput.maps`: runs only the policy on them and returns its `Decision`.
        """
        if maps is not None:
            return self.policy(maps)
        if alone is not None:
            return self.whole_frames(given(frames), alone)
        return super().forward(given(frames), overrides, auxiliary, prepare)

    @abstractmethod
    def compare(
        self, frames: Tensor, glance: GlanceOutput, where: Tensor, other: Tensor | None
    ) -> tuple[Output, Tensor]:
        """Predicts with the chosen patches, and for each step as if this step alone had another patch.

        Args:
            frames: (B, F, 3, S, S) frames of the focus network.
            glance: output of the glance network.
            where, other: (B, num_places, 2) locations of the chosen and of the other patches; if `other` is None, the
                other patches are all zeros.

        Returns:
            the output with the chosen patches, and logits (B, T, K) after each step with the other patch in this step.
        """

    @abstractmethod
    def whole_frames(self, frames: Tensor, network: str) -> Output:
        """Predicts with one network alone ("glance" or "focus") and its own head, on whole frames."""

    @abstractmethod
    def set_dropout(self, classifier: float, head: float) -> None:
        """Sets the dropout probabilities of the classifier and of the glance network's head for a stage."""


class AdaFocusV1(ReinforcedNetwork, EarlyExitNetwork):
    """AdaFocus V1 for untrimmed videos: one patch per frame at a cell of a grid, and a GRU classifier.

    It predicts after every frame, so that a clip can exit there. The released program does not exit early.

    Args:
        glance, focus: backbones (see `adafocus.backbones`).
        num_classes, segments: number of classes K and of frames T; both networks see all frames of a clip.
        patch_size, frame_size: sides of the square patches and frames in pixels.
        glance_size: side of the frames that the glance network sees, resized by nearest neighbor; None: frame_size.
        grid: the policy chooses among grid x grid patch locations.
        policy_hidden, policy_convolution: `hidden` and `convolution` of `GridPolicy`.
        classifier_width, dropout: GRU width and dropout probability of the classifier.
        head_dropout: dropout probability of the glance network's head, which only stage "glance" trains.
    """

    budgets, first_power = tuple(number / 10 for number in range(5, 40)), 1  # as AdaFocus V2
    shares_frames = True
    single_networks = {"glance": ("glance_net", "glance_head"), "focus": ("focus_net", "focus_head")}
    parts = (
        Part("glance", ("glance_net",)),
        Part("policy", ("policy.encoder", "policy.gru", "policy.actor")),
        Part("focus", ("focus_net",)),
        Part("head", ("classifier",)),
        Part("critic", ("policy.critic",), auxiliary=True),
        Part("glance", ("glance_head",), auxiliary=True),
        Part("focus", ("focus_head",), auxiliary=True),
    )
    crop_values = 0  # patches are cut at integer pixels, without interpolation

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        segments: int,
        frame_size: int = 224,
        grid: int = 7,
        policy_hidden: int = 1024,
        policy_convolution: bool = True,
        classifier_width: int = 1024,
        dropout: float = 0.5,
        head_dropout: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, frame_size=frame_size, **options)
        self.segments = self.num_places = self.num_exits = segments
        focus.map_size(frame_size)  # it sees whole frames where it is trained alone; raises if it cannot
        self.policy = GridPolicy(
            glance.width,
            glance.map_size(self.glance_size),
            grid=grid,
            hidden=policy_hidden,
            convolution=policy_convolution,
        )
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Linear(focus.width, num_classes)
        self.classifier = StepClassifier(glance.width + focus.width, num_classes, classifier_width, dropout)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of frames of a clip, by name of the set; both networks see the same set."""
        return {"frames": self.segments}

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on frames (B, T, 3, S, S)."""
        flat = frames.flatten(0, 1)
        if self.glance_size != flat.shape[-1]:
            flat = functional.interpolate(flat, (self.glance_size, self.glance_size))
        maps = self.glance_net(flat).unflatten(0, frames.shape[:2])
        return GlanceOutput(maps, maps.mean((-2, -1)))

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on one patch of each frame (B, T, 3, S, S) and predicts after every frame."""
        features = self._focused(frames, plan.where)
        steps, _ = self.classifier(torch.cat((glance.features, features), -1))
        return Output(steps[:, -1], steps, plan.where, exit_logits=steps)

    def first_frames(self, frames: Tensor) -> Tensor:
        """Selects the first frame."""
        return frames[:, :1]

    def exit_costs(self, cost: Cost) -> list[int]:
        """See `EarlyExitNetwork.exit_costs`; every frame costs the same."""
        return [round(cost.total * (step + 1) / self.segments) for step in range(self.segments)]

    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """See `EarlyExitNetwork.step`. At first `state` has the first frame (B, 1, 3, S, S)."""
        end = min((number + 1) * chunk, self.segments)
        order = torch.arange(end, device=next(iter(state.values())).device)
        frames = frames_of_step(state, order[number * chunk :], read)
        glance = self.glance(frames)
        decision = self.policy(glance.maps, state.get("policy"))
        where = self.policy.where(self.policy.best(decision))
        joined = torch.cat((glance.features, self._focused(frames, where)), -1)
        steps, states = self.classifier(joined, state.get("classifier"))
        if number:
            where = torch.cat([state["where"], where], 1)
        after = {"policy": decision.state, "classifier": states[:, -1], "where": where}
        return steps[:, -1], {**after, "looked": order.expand(len(where), -1)}

    def compare(
        self, frames: Tensor, glance: GlanceOutput, where: Tensor, other: Tensor | None
    ) -> tuple[Output, Tensor]:
        if other is None:
            chosen = self._focused(frames, where)
            empty = frames.new_zeros(1, frames.shape[2], self.patch_size, self.patch_size)
            instead = self.focus_net(empty).mean((-2, -1)).expand(*chosen.shape[:2], -1)
        else:  # the focus network processes both sets of patches in one batch
            chosen, instead = self._focused(frames, where, other).chunk(2)
        steps, states = self.classifier(torch.cat((glance.features, chosen), -1))
        baseline = self.classifier.counterfactual(torch.cat((glance.features, instead), -1), states)
        return Output(steps[:, -1], steps, where), baseline

    def whole_frames(self, frames: Tensor, network: str) -> Output:
        """Predicts with one network alone on whole frames: the mean of its per-frame logits."""
        if network == "glance":
            features = self.glance(frames).features
        else:
            features = self.focus_net(frames.flatten(0, 1)).mean((-2, -1)).unflatten(0, frames.shape[:2])
        with full_precision(features):
            logits = (self.glance_head if network == "glance" else self.focus_head)(widen(features))
        return Output(logits.mean(1), per_frame=logits)

    def set_dropout(self, classifier: float, head: float) -> None:
        self.classifier.dropout.p = classifier
        cast(nn.Dropout, self.glance_head[0]).p = head

    def _focused(self, frames: Tensor, *where: Tensor) -> Tensor:
        """Computes focus features (n * B, T, D) of the same frames at n sets of patch locations, in one batch."""
        flat = frames.flatten(0, 1)
        patches = torch.cat([cut(flat, places.flatten(0, 1), self.patch_size) for places in where])
        return self.focus_net(patches).mean((-2, -1)).unflatten(0, (-1, frames.shape[1]))
