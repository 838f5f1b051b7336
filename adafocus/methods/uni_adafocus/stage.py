"""The training stage of Uni-AdaFocus: networks, both policies and classifiers are trained together, end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import Output, given
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import GLANCE_ALONE, Variant, controls_of, patch_variant
from adafocus.methods.options import WHERE
from adafocus.methods.stage import AdaptiveStage
from adafocus.methods.uni_adafocus.model import UniAdaFocus
from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM
from adafocus.methods.uni_adafocus.options import WHEN
from adafocus.policies.frames import drawn_factors, frames_drawn, inclusion_factors


class UniAdaFocusStage(AdaptiveStage):
    """Trains the glance network, both policies, the focus network and the heads of Uni-AdaFocus jointly.

    The focus network has two branches, on the policy's rectangles and on random ones of `patch_size`, in the same
    frames:

        mean over branches of [CE(steps) + CE(focus)] + CE(glance) + CE(temporal) + CE(spatial)
        + size_weight mean((height - 1)^2, (width - 1)^2) + kl_weight KL(weights || 1 / G),

    each term averaged over all its predictions. The temporal logits are the expected mean of the logits of G // 3
    glance frames that are sampled by the temporal policy's weights. Their loss alone trains the temporal policy; the
    spatial loss and the size term train the spatial policy; no gradient flows from the focus network into a policy. The
    target is the first label of each clip.

    Source: Uni-AdaFocus (arXiv 2412.11228); LeapLabTHU/Uni-AdaFocus, `train` in main.py. Its KL term has 1 / F in place
    of 1 / G; in its recipes F equals G and the weight of the term is 0.

    Args:
        model: the network.
        normalize: converts uint8 clips to the network's input, see `Stage`.
        seed: seed of the run; all random numbers are functions of (seed, epoch, index).
        rates: learning-rate multipliers for temporal and spatial (the policies), glance (with its heads), focus (with
            its head) and, on plain backbones, classifier.
        where: "learned", or "random" or "center" to train a control without the spatial policy.
        when: "learned", or "spread" to train a control on evenly spaced frames.
        size_weight, kl_weight: weights in the loss above.
        draws: 0 computes the expected temporal logits in closed form; else the number of Monte Carlo samples that
            estimate them (128 in `MCSampleFeature` of the repository).
        controls: whether to evaluate the controls and the glance network alone as well.
        frozen_norm: normalization layers that stay in evaluation mode.
    """

    name = "joint"
    model: UniAdaFocus | UniAdaFocusTSM

    def __init__(
        self,
        model: UniAdaFocus | UniAdaFocusTSM,
        normalize: Callable[[Tensor], Tensor],
        *,
        seed: int,
        rates: dict[str, float],
        where: str = "learned",
        when: str = "learned",
        size_weight: float = 1.0,
        kl_weight: float = 0.0,
        draws: int = 0,
        controls: bool = True,
        frozen_norm: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(model, normalize, frozen_norm=frozen_norm)
        if where not in WHERE or when not in WHEN:
            raise ValueError(f"where must be one of {', '.join(WHERE)} and when one of {', '.join(WHEN)}")
        self.seed, self.rates, self.where, self.when = seed, rates, where, when
        self.size_weight, self.kl_weight, self.num_draws = size_weight, kl_weight, draws
        main = patch_variant(where, when)
        self.place_size = 4 if where == "learned" else 0
        elsewhere = [patch_variant(choice, when) for choice in controls_of(where)]
        others = [patch_variant(where, "spread"), *elsewhere, GLANCE_ALONE]
        self.variants = (main, *(variant for variant in others if variant != main)) if controls else (main,)

    def param_groups(self) -> list[ParamGroup]:
        model, rates = self.model, self.rates
        groups = [
            ParamGroup("frame policy", list(model.frame_policy.parameters()), rates["temporal"]),
            ParamGroup("spatial policy", list(model.spatial_policy.parameters()), rates["spatial"]),
            ParamGroup("glance", list(model.glance_net.parameters()), rates["glance"]),
            ParamGroup("glance head", list(model.glance_head.parameters()), rates["glance"]),
            ParamGroup("spatial head", list(model.spatial_head.parameters()), rates["glance"]),
            ParamGroup("focus", list(model.focus_net.parameters()), rates["focus"]),
            ParamGroup("focus head", list(model.focus_head.parameters()), rates["focus"]),
        ]
        if model.step_classifiers:
            steps = [p for name in model.step_classifiers for p in model.get_submodule(name).parameters()]
            groups.append(ParamGroup("classifier", steps, rates["classifier"]))
        return groups

    def step(self, batch: Batch) -> StepResult:
        overrides = self.overrides(self.variants[0], batch)
        model, device = self.model, batch.frames.device
        overrides.diversity = self.places("random", batch)
        overrides.thresholds = self.draws("thresholds", batch, (model.focus_segments,)).to(device)
        if not model.single_place:
            length = model.candidates // model.glance_segments
            overrides.offsets = (self.draws("glance", batch, (model.glance_segments,)) * length).long().to(device)
        output = self.net(batch.frames, overrides, prepare=self.normalize)
        label = batch.labels[:, 0]
        losses = self.losses(output, batch)
        metrics = {"top1": (output.logits.argmax(1) == label).float().mean()}
        metrics |= {f"loss_{name}": loss.detach() for name, loss in losses.items()}
        # For the log: how much the policies' decisions vary between clips, and the mean size of the rectangles.
        rectangles, weights = given(output.rectangles).detach(), given(output.weights).detach()
        metrics["where_spread"] = rectangles[..., :2].flatten(0, 1).std(0).mean()
        metrics["size"] = rectangles[..., 2:].mean()
        metrics["when_spread"] = weights.std(1).mean() * weights.shape[1]
        return StepResult(reduce(torch.add, losses.values()), metrics)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Returns the terms of the loss in the class docstring by name, multiplied by their weights."""
        weights, other = given(output.weights), given(output.diversity)
        count = frames_drawn(weights.shape[1])
        if self.num_draws:
            races = self.draws("temporal", batch, (self.num_draws, weights.shape[1])).to(weights.device)
            factors = drawn_factors(weights, count, races)
        else:
            factors = inclusion_factors(weights, count)
        temporal = torch.einsum("bg,bgk->bk", weights * factors, given(output.per_frame).to(weights.dtype))
        losses = {
            "policy_steps": self.objective(given(output.steps), batch) / 2,
            "random_steps": self.objective(given(other.steps), batch) / 2,
            "policy_focus": self.objective(given(output.aux_focus), batch) / 2,
            "random_focus": self.objective(given(other.aux_focus), batch) / 2,
            "glance": self.objective(given(output.aux_glance), batch),
            "temporal": self.objective(temporal[:, None], batch),
            "spatial": self.objective(given(output.aux_spatial)[:, None], batch),
            "size": self.size_weight * (given(output.rectangles)[..., 2:] - 1).square().mean(),
        }
        if self.kl_weight:
            surprise = (weights * (weights.clamp(min=1e-12) * weights.shape[1]).log()).sum(1)
            losses["kl"] = self.kl_weight * surprise.mean()
        return losses

    def costs(self, cost: Cost) -> dict[Variant, int]:
        frames, places = cost.of("frame policy"), cost.of("spatial policy")
        costs = {
            variant: cost.total - (variant.when != "learned") * frames - (variant.where != "learned") * places
            for variant in self.variants
        }
        if GLANCE_ALONE in costs:
            costs[GLANCE_ALONE] = self.model.glance_cost(cost)
        return costs
