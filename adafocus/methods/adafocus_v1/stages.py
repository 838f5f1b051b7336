"""The training stages of AdaFocus V1.

Stages "glance" and "focus" train each network alone on whole frames; stage 1 trains the focus network and the
classifier on random patches; stage 2 trains the policy by PPO; stage 3 trains the classifier on the policy's patches.

Source: AdaFocus V1 (arXiv 2105.03245) section 3.3; blackfeather-wang/AdaFocus, main_dist.py (ActivityNet) and
stage1.py, stage2.py and stage3.py (Something-Something).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import GLANCE_ALONE, WHOLE_FRAMES, Variant, controls_of, patch_variant
from adafocus.methods.adafocus_v1.model import ReinforcedNetwork
from adafocus.methods.adafocus_v1.ppo import ppo_loss, returns, rewards
from adafocus.methods.stage import AdaptiveStage
from adafocus.policies.actor_critic import Decision

#: Parts that stages 1, 2 and 3 train.
_LEARNS = {"1": ("focus", "classifier"), "2": ("policy",), "3": ("classifier",)}


class ReinforcedStage(AdaptiveStage):
    """Base class of the stages. Parts that a stage does not train stay in evaluation mode and are not changed.

    Args:
        model: the network, on plain or TSM backbones.
        normalize: converts uint8 clips to the network's input, see `Stage`.
        name: "glance", "focus", "1", "2" or "3".
        seed: seed of the run; random patches and sampled actions are functions of (seed, epoch, index).
        rates: learning-rate multipliers for glance, focus, classifier and policy.
        controls: whether to evaluate constant, random and centered patches as well.
    """

    random_draw = "random patch"
    model: ReinforcedNetwork

    def __init__(
        self,
        model: ReinforcedNetwork,
        normalize: Callable[[Tensor], Tensor],
        *,
        name: str,
        seed: int,
        rates: dict[str, float] | None = None,
        controls: bool = True,
    ) -> None:
        super().__init__(model, normalize)
        self.name, self.seed, self.rates = name, seed, rates or {}
        #: The trained submodules, by the key of their learning-rate multiplier.
        self.learns = {part: model.learning_modules[part] for part in _LEARNS.get(name, ())}
        if name in ("glance", "focus"):
            self.learns = {name: model.single_networks[name]}
        if name in ("glance", "focus"):
            self.variants = (GLANCE_ALONE if name == "glance" else WHOLE_FRAMES,)
        else:
            main = "random" if name == "1" else "learned"
            self.place_size = 2 if main == "learned" else 0
            others = tuple(patch_variant(choice) for choice in controls_of(main) if choice != main)
            self.variants = (patch_variant(main), *others) if controls else (patch_variant(main),)

    def param_groups(self) -> list[ParamGroup]:
        return [
            ParamGroup(part, list(getattr(self.model, part).parameters()), self.rates.get(kind, 1.0))
            for kind, parts in self.learns.items()
            for part in parts
        ]

    def train(self) -> None:
        self.net.train()
        self.model.eval()
        for parts in self.learns.values():
            for part in parts:
                getattr(self.model, part).train()

    @abstractmethod
    def step(self, batch: Batch) -> StepResult: ...

    @torch.no_grad()
    def evaluate(self, batch: Batch, variants: tuple[Variant, ...]) -> dict[Variant, Output]:
        """Predicts in each variant; the stages "glance" and "focus" run their network alone on whole frames."""
        if self.name in self.model.single_networks:
            self.model.eval()
            return {self.variants[0]: self.model(self.normalize(batch.frames), alone=self.name)}
        return super().evaluate(batch, variants)

    def costs(self, cost: Cost) -> dict[Variant, int]:
        if self.name == "glance":
            return {self.variants[0]: sum(count for part, count in cost.parts.items() if part.name == "glance")}
        if self.name == "focus":  # MACs were counted on patches; for a convolutional network they grow with the area
            area = (self.model.frame_size / self.model.patch_size) ** 2
            return {self.variants[0]: round(cost.of("focus") * area)}
        looking = cost.of("glance", "focus", "head")
        return {variant: looking + (variant.where == "learned") * cost.of("policy") for variant in self.variants}


class SupervisedStage(ReinforcedStage):
    """Stages "glance", "focus", 1 and 3: cross entropy, averaged over all steps of the prediction."""

    def step(self, batch: Batch) -> StepResult:
        label = batch.labels[:, 0]
        if self.name in ("glance", "focus"):
            logits = self.net(self.normalize(batch.frames), alone=self.name).logits
            steps = logits[:, None]
        else:
            where = self.places("random", batch) if self.name == "1" else None
            output = self.net(batch.frames, Overrides(where), prepare=self.normalize)
            logits, steps = output.logits, given(output.steps)
        return StepResult(self.objective(steps.float(), batch), {"top1": (logits.argmax(1) == label).float().mean()})


@dataclass
class _Episode:
    """The actions sampled for a batch of videos, with what the PPO updates need.

    Attributes:
        glance: output of the glance network.
        actions: (B, S) cells of `GridPolicy` or (B, 1, 2) locations of `GaussianPolicy`.
        old: (B, S) log-probability of the actions when they were sampled.
        gain: (B, S) normalized returns.
        metrics: scalars to log.
    """

    glance: GlanceOutput
    actions: Tensor
    old: Tensor
    gain: Tensor
    metrics: dict[str, Tensor]


class PolicyStage(ReinforcedStage):
    """Stage 2: trains the policy by PPO. Actions are sampled once per batch, followed by `epochs` * `minibatches`
    updates.

    The policy reads glance features only, so all steps of a video are one call of its GRU. The focus network processes
    the chosen patches and those of the baseline as one batch, and the baseline's probabilities are one batched step of
    the classifier (`StepClassifier.counterfactual`). With one update per batch, the forward pass that samples the
    actions is also the one that is differentiated. The released program (models/ppo.py, `policy_old`) keeps a second
    policy for sampling, whose weights equal those of the first whenever it samples.

    Args:
        reward, gamma, clip, value_weight, entropy_weight: arguments of the functions in `ppo`.
        epochs, minibatches: number of passes over a batch of videos and of parts that each pass splits it into; every
            part gives one update.
        Others: see `ReinforcedStage`.
    """

    supervised = False

    def __init__(
        self,
        model: ReinforcedNetwork,
        normalize: Callable[[Tensor], Tensor],
        *,
        seed: int,
        rates: dict[str, float] | None = None,
        controls: bool = True,
        reward: str = "random",
        gamma: float = 0.7,
        clip: float = 0.2,
        value_weight: float = 0.5,
        entropy_weight: float = 0.01,
        epochs: int = 1,
        minibatches: int = 1,
    ) -> None:
        super().__init__(model, normalize, name="2", seed=seed, rates=rates, controls=controls)
        self.reward, self.gamma = reward, gamma
        self.weights = {"clip": clip, "value_weight": value_weight, "entropy_weight": entropy_weight}
        self.minibatches = minibatches
        self.rounds = epochs * minibatches
        self._round = 0
        self._episode: _Episode | None = None

    def compiled(self, **options: Any) -> nn.Module:
        """Compiles the two backbones in place and returns the network, because a step calls its parts separately.

        The policy, which alone goes through `forward`, is a small recurrent network and is not compiled.
        """
        self.model.glance_net.compile(**options)
        self.model.focus_net.compile(**options)
        return self.model

    def step(self, batch: Batch) -> StepResult:
        """Computes the loss of one PPO update; the first call for a batch also samples its actions."""
        policy = self.model.policy
        if self._round == 0:
            seen = self.glance_frames(batch)
            frames = seen if self.model.shares_frames else self.normalize(self.model.focus_frames(batch.frames))
            with torch.no_grad():
                glance = self.model.glance(seen)
            with torch.set_grad_enabled(self.rounds == 1):
                decision = self.net(None, maps=glance.maps) if self.rounds == 1 else policy(glance.maps)
            self._episode = self._sample_episode(frames, batch, glance, decision)
        episode = given(self._episode)
        rows = torch.arange(len(batch), device=batch.frames.device).chunk(self.minibatches)[
            self._round % self.minibatches
        ]
        if self.rounds > 1:
            decision = self.net(None, maps=episode.glance.maps[rows])
        actions = episode.actions[rows]
        entropy = policy.entropy(decision)
        loss = ppo_loss(
            policy.log_probability(decision, actions),
            episode.old[rows],
            decision.values,
            episode.gain[rows],
            entropy,
            **self.weights,
        )
        self._round = (self._round + 1) % self.rounds
        metrics = {
            **episode.metrics,
            "entropy": entropy.detach().mean(),
            "advantage": loss.advantage.detach().abs().mean(),
            "clip_fraction": loss.clipped,
            "value_loss": ((decision.values.detach() - episode.gain[rows]) ** 2).mean(),
        }
        return StepResult(loss.elements.mean(), metrics)

    @torch.no_grad()
    def _sample_episode(self, frames: Tensor, batch: Batch, glance: GlanceOutput, decision: Decision) -> _Episode:
        """Samples the actions of a batch and computes their returns; `frames` are those of the focus network."""
        policy, label = self.model.policy, batch.labels[:, 0]
        actions = policy.sample(decision, self.draws("policy", batch, (self.model.num_places, 2)))
        where = policy.where(actions)
        if self.reward in ("random", "padding"):
            other = self.draws("random patch", batch, (self.model.num_places, 2)) if self.reward == "random" else None
            output, instead = self.model.compare(frames, glance, where, other)
            baseline = _probability(instead, label)
        else:
            output, baseline = self.model.focus(frames, Plan(where), glance), None
        reward = rewards(self.reward, _probability(given(output.steps), label), baseline)
        metrics = {
            "reward": reward.mean(),
            "top1": (output.logits.argmax(1) == label).float().mean(),
            "where_spread": where.flatten(0, 1).std(0).mean(),
        }
        old = policy.log_probability(decision, actions)
        return _Episode(glance, actions, old, returns(reward, self.gamma), metrics)


def _probability(steps: Tensor, label: Tensor) -> Tensor:
    """Returns the probability (B, S) of the true class after each step, from logits (B, S, K) and labels (B,)."""
    index = label[:, None, None].expand(-1, steps.shape[1], 1)
    return steps.float().softmax(-1).gather(-1, index).squeeze(-1)
