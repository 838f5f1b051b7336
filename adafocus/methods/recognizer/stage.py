"""The training stage of a recognizer: cross entropy of the clip's logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.output import Output
from adafocus.core.stage import ParamGroup, Stage, StepResult, batch_norms
from adafocus.core.variants import WHOLE_FRAMES, Variant
from adafocus.methods.recognizer.param_groups import partial_norms, recognizer_groups

NORMS = ("all", "partial", "frozen")


class WholeFrames(Stage):
    """Trains TSN, TSM, NL-TSM or TAM.

    Source: TSN (arXiv 1608.00859); mit-han-lab/temporal-shift-module, `train` in main.py.

    Args:
        model: the recognizer.
        normalize: converts uint8 clips to the network's input, see `Stage`.
        groups, head_rate, flow: the arguments `rule`, `head_rate` and `flow` of `param_groups.recognizer_groups`.
        norms: "all" trains all BatchNorm layers; "partial" freezes those of `param_groups.partial_norms`; "frozen"
            keeps the running statistics of all of them fixed.
    """

    name = "joint"
    variants = (WHOLE_FRAMES,)

    def __init__(
        self,
        model: nn.Module,
        normalize: Callable[[Tensor], Tensor],
        *,
        groups: str = "single",
        head_rate: float = 5.0,
        flow: bool = False,
        norms: str = "all",
    ) -> None:
        if norms not in NORMS:
            raise ValueError(f"norms={norms!r} is unknown; choose one of {', '.join(NORMS)}")
        frozen = {"all": [], "partial": partial_norms(model), "frozen": batch_norms(model)}[norms]
        super().__init__(model, normalize, frozen_norm=frozen)
        still = frozen if norms == "partial" else []
        self.groups = recognizer_groups(model, groups, head_rate=head_rate, flow=flow, frozen=still)

    def param_groups(self) -> list[ParamGroup]:
        return self.groups

    def step(self, batch: Batch) -> StepResult:
        label = batch.labels[:, 0]
        logits = self.net(self.normalize(batch.frames)).logits
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        right = (logits.argmax(1) == label).float().mean()
        return StepResult(self.objective(logits[:, None], batch), {"top1": right})

    @torch.no_grad()
    def evaluate(self, batch: Batch, variants: tuple[Variant, ...]) -> dict[Variant, Output]:
        self.model.eval()
        return {self.variants[0]: self.model(self.normalize(batch.frames))}
