"""A recogniser on whole frames: every parameter learns, cross entropy on the clip's logits."""

from __future__ import annotations

import torch
from torch.nn import functional

from adafocus.batch import Batch
from adafocus.models.outputs import Output
from adafocus.stages.base import ParamGroup, Stage, StepResult


class WholeFrames(Stage):
    """TSN and its descendants. Source: arXiv 1608.00859; spec tsm section 4."""

    name = "joint"
    variants = ("whole frames",)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup("network", list(self.model.parameters()))]

    def step(self, batch: Batch) -> StepResult:
        label = batch.labels[:, 0]
        logits = self.net(self.normalise(batch.frames)).logits.float()
        right = (logits.argmax(1) == label).float().mean()
        return StepResult(functional.cross_entropy(logits, label), {"top1": right})

    @torch.no_grad()
    def evaluate(self, batch: Batch, variants: tuple[str, ...]) -> dict[str, Output]:
        self.model.eval()
        return {self.variants[0]: self.model(self.normalise(batch.frames))}
