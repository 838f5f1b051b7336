"""The training stage of AdaFocus V2: all parts are trained together, end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import Output, Overrides, given
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import GLANCE_ALONE, Variant, controls_of, patch_variant
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
from adafocus.methods.options import RULES, WHERE
from adafocus.methods.stage import AdaptiveStage
from adafocus.policies.heat_map import HeatMapPolicy, cell_motion, corners, mean_nearby, peaks, scores_at

CELLS = (16, 16)  #: height and width of the map of motion for where="motion"
APART = 2.5  #: smallest distance of several patches at the largest motion, in patch sides (see `policy=two`)


class JointStage(AdaptiveStage):
    """Trains glance network, policy, focus network and classifier jointly.

    There are two passes, one at the policy's patches and one at random patches. The loss of a pass is CE(steps) +
    CE(glance) + CE(focus), each averaged over all B * T predictions (B on TSM); the total is the mean of the two
    passes. The target is the first label of each clip.

    With `places_weight`, the heat map of the policy also learns how useful each patch location is. The target is the
    log-probability of the label that the focus network's auxiliary head computes from the patch there, known at the
    policy's and at the random locations; the heat map's scores at these locations are regressed on it. The mean over
    the clip (over the frame, if every frame has its own map) is subtracted from both, so that a score says by how much
    a location is better than the others, not how easy the clip is.

    Source: AdaFocus V2 (arXiv 2112.14238) section 3; LeapLabTHU/AdaFocusV2, `train` in main_v2.py (ActivityNet) and
    main.py (Something-Something).

    Args:
        model: the network.
        normalize: converts uint8 clips to the network's input, see `Stage`.
        seed: seed of the run; the random patches are a function of (seed, epoch, index).
        rates: learning-rate multipliers for policy, glance (with its head), focus (with its head) and classifier.
        diversity: whether there is the pass at random patches.
        places_weight: weight of the heat map's regression loss; 0: none.
        where: "learned", or another word of `WHERE` to train a control without the policy.
        controls: whether to evaluate the control patches and the glance network alone as well.
        frozen_norm: normalization layers that stay in evaluation mode.
    """

    name = "joint"
    model: AdaFocusV2 | AdaFocusV2TSM

    def __init__(
        self,
        model: AdaFocusV2 | AdaFocusV2TSM,
        normalize: Callable[[Tensor], Tensor],
        *,
        seed: int,
        rates: dict[str, float],
        diversity: bool = True,
        places_weight: float = 0.0,
        where: str = "learned",
        controls: bool = True,
        frozen_norm: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(model, normalize, frozen_norm=frozen_norm)
        if where not in WHERE:
            raise ValueError(f"where={where!r} is unknown; choose one of {', '.join(WHERE)}")
        self.seed, self.rates, self.where, self.places_weight = seed, rates, where, places_weight
        self.diversity = diversity
        self.place_size = 2 if where == "learned" else 0
        main, others = patch_variant(where), [patch_variant(choice) for choice in controls_of(where) if choice != where]
        if where == "learned" and isinstance(model.policy, HeatMapPolicy) and model.policy.motion:
            if model.policy.learned:
                others.insert(0, patch_variant("motion"))
            else:
                main = replace(main, label=patch_variant("motion").label)
        self.variants = (main, *others, GLANCE_ALONE) if controls else (main,)

    def places(self, choice: str, batch: Batch) -> Tensor | None:
        """See `AdaptiveStage.places`; "oracle" is the true location, "motion" that of the largest motion.

        A policy that reads motion finds the latter itself, see `Overrides.motion`.
        """
        model = self.model
        if choice not in RULES or (choice == "motion" and "motion" in model.decide_fields):
            return super().places(choice, batch)
        share, each = model.patch_size / model.frame_size, model.place_per_frame

        def looked_at(of_frames: Tensor) -> Tensor:  # the frames of the patches, in processing order
            return model.glance_frames(of_frames, Overrides()) if each else model.focus_frames(of_frames)

        if choice == "oracle":
            centers = looked_at(given(batch.subject))
            centers = centers if each else centers.mean(1, keepdim=True).expand(-1, model.num_places, -1)
            return corners(centers, share)
        moved = cell_motion(self.normalize(batch.frames) if each else looked_at(self.normalize(batch.frames)), CELLS)
        moved = looked_at(moved) if each else moved.mean(1, keepdim=True)
        near = mean_nearby(moved, share).flatten(0, 1)
        centers = peaks(near, 1 if each else model.num_places, window=share / 2, apart=APART * share)
        return corners(centers, share).reshape(len(batch), -1, 2)

    def param_groups(self) -> list[ParamGroup]:
        model = self.model
        groups = [
            ParamGroup("policy", list(model.policy.parameters()), self.rates["policy"]),
            ParamGroup("glance", list(model.glance_net.parameters()), self.rates["glance"]),
            ParamGroup("glance head", list(model.glance_head.parameters()), self.rates["glance"]),
            ParamGroup("focus", list(model.focus_net.parameters()), self.rates["focus"]),
            ParamGroup("focus head", list(model.focus_head.parameters()), self.rates["focus"]),
        ]
        for name in model.step_classifiers:
            groups.append(ParamGroup(name, list(model.get_submodule(name).parameters()), self.rates["classifier"]))
        return groups if self.where == "learned" else groups[1:]

    def step(self, batch: Batch) -> StepResult:
        label = batch.labels[:, 0]
        random = self.places("random", batch) if self.diversity else None
        overrides = Overrides(self.places(self.where, batch), random)
        output = self.net(batch.frames, overrides, prepare=self.normalize)
        losses = self._losses("policy", output, batch)
        loss = reduce(torch.add, losses.values())
        if output.diversity is not None:
            losses |= self._losses("random", output.diversity, batch)
            loss = reduce(torch.add, losses.values()) / 2
        right = (output.logits.argmax(1) == label).float().mean()
        metrics = {"top1": right, **{name: loss.detach() for name, loss in losses.items()}}
        if output.where is not None:
            # For the log: how much patch locations vary between clips; 0 if the policy always chooses the same one.
            metrics["where_spread"] = output.where.detach().flatten(0, 1).std(0).mean()
        if self.places_weight and output.scores is not None:
            value = value_loss(output, label, cast(HeatMapPolicy, self.model.policy).patch)
            metrics["loss_value"] = value.detach()
            loss = loss + self.places_weight * value
        return StepResult(loss, metrics)

    def _losses(self, name: str, output: Output, batch: Batch) -> dict[str, Tensor]:
        parts = {"steps": output.steps, "glance": output.aux_glance, "focus": output.aux_focus}
        return {f"loss_{name}_{part}": self.objective(given(logits).float(), batch) for part, logits in parts.items()}

    def costs(self, cost: Cost) -> dict[Variant, int]:
        looking = cost.of("glance", "focus", "head", "crop")
        costs = {variant: looking + (variant.where == "learned") * cost.of("policy") for variant in self.variants}
        if GLANCE_ALONE in costs:
            costs[GLANCE_ALONE] = self.model.glance_cost(cost)
        return costs


def value_loss(output: Output, label: Tensor, patch: float) -> Tensor:
    """Computes the mean squared error of the heat map's scores to the label's log-probabilities at patch locations.

    Both passes count: the policy's locations and the random ones. The mean over each map's locations is subtracted
    from scores and log-probabilities.

    Args:
        output: with `scores` (B, M, h, w), either M = T maps with one location each or M = 1 map with all locations;
            and with the output of the second pass in `diversity`.
        label: (B,) class ids.
        patch: side of the patches as a share of the frame's side.
    """
    scores = given(output.scores)
    maps = scores.shape[1]
    values, gains = [], []
    for one in (output, given(output.diversity)):
        where = given(one.where).detach().unflatten(1, (maps, -1)).flatten(0, 1)  # (B * M, locations of a map, 2)
        values.append(scores_at(scores.flatten(0, 1), where, patch))
        said = given(one.place_logits).detach().float().log_softmax(-1)
        rows = label[:, None, None].expand(-1, said.shape[1], 1)
        gains.append(said.gather(-1, rows).squeeze(-1).view_as(values[-1]))
    value, gain = torch.cat(values, 1), torch.cat(gains, 1)
    return ((value - value.mean(1, keepdim=True)) - (gain - gain.mean(1, keepdim=True))).square().mean()
