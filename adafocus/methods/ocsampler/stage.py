"""The training stage of OCSampler: both networks by cross entropy, the policy by its reward."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import Output, Overrides
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import GLANCE_ALONE, Variant
from adafocus.methods.ocsampler.model import OCSampler
from adafocus.methods.stage import AdaptiveStage

LEARNED = Variant("chosen frames", when="learned")
OTHERS = (
    Variant("spread frames", when="spread"),
    Variant("random frames", when="random"),
    Variant("frames of largest difference", when="difference"),
)


class OCSamplerStage(AdaptiveStage):
    """Trains all parts of OCSampler together.

    The focus network sees two sets of frames, those that the policy draws and evenly spaced ones; its loss is the mean
    cross entropy of both, and the glance network has its own. The policy learns by REINFORCE: its reward is the
    probability of the label for the drawn frames less that for the evenly spaced ones, so that an easy clip is no
    reward. No gradient of the policy reaches the glance network.

    The idea, a single decision from a network that skims all frames, learned from the classifier's answer, is that of
    OCSampler (arXiv 2201.04388). The paper trains in several stages with a pre-trained classifier, and we have not seen
    its exact reward; one stage, and this reward, are ours.

    Args:
        model: the network.
        normalize: see `Stage`.
        seed: seed of the run.
        rates: learning-rate multipliers for policy, glance (with its head) and focus (with its head).
        controls: whether to evaluate other frames and the glance network alone as well.
        frozen_norm: see `Stage`.
    """

    name = "joint"
    model: OCSampler

    def __init__(
        self,
        model: OCSampler,
        normalize: Callable[[Tensor], Tensor],
        *,
        seed: int,
        rates: dict[str, float],
        controls: bool = True,
        frozen_norm: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(model, normalize, frozen_norm=frozen_norm)
        self.seed, self.rates = seed, rates
        self.variants = (LEARNED, *OTHERS, GLANCE_ALONE) if controls else (LEARNED,)

    def param_groups(self) -> list[ParamGroup]:
        model, rates = self.model, self.rates
        return [
            ParamGroup("policy", list(model.policy.parameters()), rates["policy"]),
            ParamGroup("glance", list(model.glance_net.parameters()), rates["glance"]),
            ParamGroup("glance head", list(model.glance_head.parameters()), rates["glance"]),
            ParamGroup("focus", list(model.focus_net.parameters()), rates["focus"]),
            ParamGroup("focus head", list(model.focus_head.parameters()), rates["focus"]),
        ]

    def step(self, batch: Batch) -> StepResult:
        draws = self.draws("frames", batch, (self.model.glance_segments,))
        overrides = Overrides(thresholds=draws, diversity=self.model.even_frames(batch.frames))
        output = self.net(batch.frames, overrides, prepare=self.normalize)
        assert output.diversity is not None
        label = batch.labels[:, 0]
        losses = {
            "chosen": self.objective(output.logits[:, None].float(), batch) / 2,
            "spread": self.objective(output.diversity.logits[:, None].float(), batch) / 2,
            "glance": self.objective(output.aux_glance.float(), batch),
        }
        reward = _of_label(output, label) - _of_label(output.diversity, label)
        metrics = {"top1": (output.logits.argmax(1) == label).float().mean(), "reward": reward.mean()}
        metrics |= {f"loss_{name}": loss.detach() for name, loss in losses.items()}
        return StepResult(sum(losses.values()) - (reward * output.scores).mean(), metrics)

    def overrides(self, variant: Variant, batch: Batch) -> Overrides:
        model, frames = self.model, batch.frames
        if variant.when == "learned":
            return Overrides()
        if variant.when == "spread":
            return Overrides(frames=model.even_frames(frames))
        if variant.when == "random":
            scores = self.draws("random frames", batch, (model.glance_segments,))
        else:
            scores = changes(self.normalize(frames))
        return Overrides(frames=scores.topk(model.focus_segments, 1).indices.sort(1).values)

    def other_frames(self, batch: Batch, rows: Tensor, candidates: Tensor) -> Tensor:
        """See `AdaptiveStage.other_frames`; the batch holds all frames."""
        return batch.frames[rows[:, None], candidates]

    def costs(self, cost: Cost) -> dict[Variant, int]:
        """See `Stage.costs`; frames that are chosen by a rule need no glance."""
        rule = cost.of("focus", "head")
        costs = {variant: cost.total if variant == LEARNED else rule for variant in self.variants}
        if GLANCE_ALONE in costs:
            costs[GLANCE_ALONE] = cost.of("glance") + cost.of("glance", auxiliary=True)
        return costs


def changes(frames: Tensor) -> Tensor:
    """(B, G): mean absolute difference of each frame (B, G, 3, S, S) to the one before; of frame 0 to frame 1."""
    if frames.shape[1] == 1:
        return frames.new_zeros(frames.shape[0], 1)
    change = frames.diff(dim=1).abs().mean((-3, -2, -1))
    return torch.cat([change[:, :1], change], 1)


def _of_label(output: Output, label: Tensor) -> Tensor:
    """(B,) the probability of the label, without gradient."""
    return output.logits.detach().float().softmax(1).gather(1, label[:, None])[:, 0]
