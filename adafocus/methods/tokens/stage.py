"""The training stage of TokenFocus: glance network, policy and vision transformer are trained together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import Overrides
from adafocus.core.rng import uniform
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import GLANCE_ALONE, Variant
from adafocus.methods.stage import AdaptiveStage
from adafocus.methods.tokens import controls
from adafocus.methods.tokens.controls import CHOICES
from adafocus.methods.tokens.model import TokenFocus
from adafocus.policies.cells import choose_cells


class TokenStage(AdaptiveStage):
    """Trains all parts of TokenFocus jointly, each step with another number of tokens.

    The loss is CE(groups), averaged over the predictions after each group, + CE(glance). The policy has no loss of its
    own: it learns from the gradients of the chosen tokens, see `methods.tokens.credit`. The target is the first label
    of each clip. The share of tokens is sampled log-uniformly from `keep_range`, once for all clips of a step. It is a
    function of (seed, epoch, index of the batch's first clip), so unlike all other random numbers it depends on how
    the clips of a step are divided among devices.

    Args:
        model: the network.
        normalize: converts uint8 clips to the network's input, see `Stage`.
        seed: seed of the run.
        rates: learning-rate multipliers for policy, glance (with its head) and focus (the transformer and its head).
        where: "learned", or another value of `controls.CHOICES` to train a control without the policy.
        keep_range: smallest and largest share of the cells that is chosen in training.
        controls: whether to evaluate the controls and the glance network alone as well.
        frozen_norm: normalization layers that stay in evaluation mode.
    """

    name = "joint"
    model: TokenFocus

    def __init__(
        self,
        model: TokenFocus,
        normalize: Callable[[Tensor], Tensor],
        *,
        seed: int,
        rates: dict[str, float],
        where: str = "learned",
        keep_range: tuple[float, float] = (0.05, 0.5),
        controls: bool = True,
        frozen_norm: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(model, normalize, frozen_norm=frozen_norm)
        if where not in CHOICES:
            raise ValueError(f"where={where!r} is unknown; choose one of {', '.join(CHOICES)}")
        self.seed, self.rates, self.where, self.keep_range = seed, rates, where, keep_range
        main = token_variant(where)
        self.place_size = model.num_cells if where == "learned" else 0
        constant = ("constant",) if where == "learned" else ()
        others = [token_variant(choice) for choice in (*constant, *CHOICES[1:]) if choice != where]
        self.variants = (main, *others, GLANCE_ALONE) if controls else (main,)

    def param_groups(self) -> list[ParamGroup]:
        """Groups the trained parameters; of the transformer, only weights of linear layers have weight decay."""
        model, rates = self.model, self.rates
        parameters = dict(model.encoder.named_parameters())
        weights = [name for name, value in parameters.items() if value.ndim > 1 and name.endswith("weight")]
        others = [name for name in parameters if name not in weights]
        groups = [
            ParamGroup("policy", list(model.policy.parameters()), rates["policy"]),
            ParamGroup("glance", list(model.glance_net.parameters()), rates["glance"]),
            ParamGroup("glance head", list(model.glance_head.parameters()), rates["glance"]),
            ParamGroup("focus", [parameters[name] for name in weights], rates["focus"]),
            ParamGroup("focus without decay", [parameters[name] for name in others], rates["focus"], 0.0),
            ParamGroup("focus head", list(model.focus_head.parameters()), rates["focus"]),
        ]
        return groups if self.where == "learned" else groups[1:]

    def step(self, batch: Batch) -> StepResult:
        keep = self.drawn_keep(batch)
        output = self.net(batch.frames, self.training_overrides(batch, keep), prepare=self.normalize)
        label = batch.labels[:, 0]
        exits = output.exit_logits
        losses = {
            "groups": self.objective(exits[:, 1:].float(), batch),
            "glance": self.objective(exits[:, :1].float(), batch),
        }
        metrics = {"top1": (output.logits.argmax(1) == label).float().mean()}
        metrics |= {f"loss_{name}": loss.detach() for name, loss in losses.items()}
        if output.policy_loss is not None:
            losses["policy"] = output.policy_loss.mean()
        # For the log: how much the chosen locations vary between clips.
        metrics["where_spread"] = output.where.flatten(0, 1).std(0).mean()
        return StepResult(reduce(torch.add, losses.values()), metrics)

    def drawn_keep(self, batch: Batch) -> float:
        """Samples the share of cells for a training step."""
        drawn = float(uniform(self.seed, "keep", batch.epoch, batch.index[:1].tolist(), ()))
        low, high = map(math.log, self.keep_range)
        return math.exp(low + drawn * (high - low))

    def training_overrides(self, batch: Batch, keep: float) -> Overrides:
        """Returns the decisions of a training step: cells sampled by their scores, or those of a control."""
        count = self.model.count(keep)
        if self.where != "learned":
            return Overrides(self.cells(self.where, batch, count))
        return Overrides(thresholds=self.draws("tokens", batch, (2, self.model.num_cells)), count=count)

    def places(self, choice: str, batch: Batch) -> Tensor | None:
        """Returns the cells (B, n) for a value of `Variant.where`; None if the policy decides ("learned")."""
        return None if choice == "learned" else self.cells(choice, batch, self.model.count())

    def cells(self, choice: str, batch: Batch, count: int) -> Tensor:
        """Returns the cells (B, count) that a control chooses."""
        grid, device = self.model.policy.grid, batch.frames.device
        if choice == "random":
            scores = self.draws("random tokens", batch, (self.model.num_cells,))
        elif choice == "constant":
            assert self.constant_place is not None
            # The small term spreads cells that were chosen equally often over the clip.
            scores = (self.constant_place.to(device) + 1e-6 * controls.uniform(grid, device)).expand(len(batch), -1)
        elif choice in ("uniform", "center"):
            scores = getattr(controls, choice)(grid, device).expand(len(batch), -1)
        else:
            scores = getattr(controls, choice)(self.normalize(self.first_frames(batch)), grid)
        return choose_cells(scores, count)

    def other_frames(self, batch: Batch, rows: Tensor, candidates: Tensor) -> Tensor:
        """Returns candidates as `AdaptiveStage.other_frames`, without decoding the glance frames again."""
        if batch.source is None:
            return super().other_frames(batch, rows, candidates)
        slot = torch.full((self.model.candidates,), -1, device=candidates.device)
        slot[self.model.first] = torch.arange(len(self.model.first), device=candidates.device)
        held = slot[candidates]
        there = rows.to(batch.frames.device, non_blocking=True)
        found = batch.frames[there[:, None], held.clamp(min=0)]
        new = held < 0
        some = new.any(1)
        if some.any():
            # A clip's requests for glance frames are replaced by one of its new frames; a repeated frame is decoded
            # once.
            wanted, here = candidates[some], new[some]
            any_new = wanted.gather(1, here.int().argmax(1, keepdim=True))
            read = batch.read(rows[some.to(rows.device)], torch.where(here, wanted, any_new))
            found[some] = torch.where(here[..., None, None, None], read, found[some])
        return found

    def costs(self, cost: Cost) -> dict[Variant, int]:
        """Returns the multiply-adds per video of each variant; of the controls only "unique" has its own."""
        without = cost.total - cost.of("policy")
        costs = {variant: cost.total if variant.where == "learned" else without for variant in self.variants}
        for variant in costs:
            if variant.where == "unique":  # norms of the cells' pixel vectors, and scalar products with their mean
                costs[variant] += 2 * self.model.glance_segments * 3 * self.model.frame_size**2
        if GLANCE_ALONE in costs:
            costs[GLANCE_ALONE] = self.model.glance_cost(cost)
        return costs


def token_variant(choice: str) -> Variant:
    """Returns the variant that chooses cells by `choice`, one of `controls.CHOICES`."""
    return Variant(f"{LABELS.get(choice, choice)} tokens", choice)


#: Names in tables of choices whose key is not clear enough.
LABELS = {"difference": "largest difference"}
