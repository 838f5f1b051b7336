"""The training stage of FrameExit."""

from __future__ import annotations

from adafocus.core.batch import Batch
from adafocus.core.cost import Cost
from adafocus.core.output import Overrides
from adafocus.core.stage import ParamGroup, StepResult
from adafocus.core.variants import WHOLE_FRAMES, Variant
from adafocus.methods.frame_exit.model import FrameExit
from adafocus.methods.stage import AdaptiveStage


class FrameExitStage(AdaptiveStage):
    """Trains network and classifier with the cross entropy of the predictions after every frame, averaged over them.

    The paper trains the classifiers in this way first and then gates, which `FrameExit` does not have.
    """

    name = "joint"
    variants = (WHOLE_FRAMES,)
    model: FrameExit

    def param_groups(self) -> list[ParamGroup]:
        model = self.model
        parts = {"focus": model.focus_net, "classifier": model.classifier}
        return [ParamGroup(name, list(part.parameters())) for name, part in parts.items()]

    def step(self, batch: Batch) -> StepResult:
        output = self.net(self.normalize(batch.frames))
        right = (output.logits.argmax(1) == batch.labels[:, 0]).float().mean()
        return StepResult(self.objective(output.steps.float(), batch), {"top1": right})

    def overrides(self, variant: Variant, batch: Batch) -> Overrides:
        """Nothing is decided."""
        return Overrides()

    def costs(self, cost: Cost) -> dict[Variant, int]:
        return {WHOLE_FRAMES: cost.total}
