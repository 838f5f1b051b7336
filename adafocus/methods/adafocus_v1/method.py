"""AdaFocus V1 (arXiv 2105.03245): a patch policy trained by reinforcement learning, in stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adafocus.core.choices import V1_STAGES
from adafocus.core.frames import FramePlan
from adafocus.methods.base import Method, Widths

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage


class AdaFocusV1Method(Method):
    """AdaFocus V1: one patch per frame on plain backbones, one patch location per video on TSM."""

    name = "adafocus_v1"
    stages = V1_STAGES

    @property
    def widths(self) -> Widths:
        """Those of the released networks."""
        return Widths(1024, None if self.on_tsm else 1024)

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`."""
        found = {"schedule.dropout"}
        found |= {"policy.deviation", "policy.norm"} if self.on_tsm else {"policy.grid", "policy.convolution"}
        if not self.on_tsm:
            found.add("backbone.glance_size")
        if self.config.stage.name in ("2", "all"):
            learned = "reward gamma clip value_weight entropy_weight epochs minibatches"
            found |= {f"policy.{name}" for name in learned.split()}
        return super().reads | found

    @property
    def not_needed(self) -> tuple[str, ...]:
        """There is no policy before stage 2."""
        return ("policy.",) if self.config.stage.name in ("glance", "focus", "1") else ()

    def check(self) -> None:
        """See `Method.check`."""
        super().check()
        self.check_same_frames()

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Both networks see the same frames; on TSM the focus network has its own, by default 3/2 as many."""
        segments = self.config.segments
        return FramePlan(segments.glance, (segments.focus or segments.glance * 3 // 2) if self.on_tsm else 0)

    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """See `Method.network`."""
        backbone, policy, frames = self.config.backbone, self.config.policy, self.frame_plan()
        shared = {
            "num_classes": num_classes,
            "patch_size": self.config.patch.size,
            "frame_size": self.config.dataset.frame_size,
            "policy_hidden": backbone.policy_hidden,
            "dropout": self.config.schedule.dropout,
        }
        if self.on_tsm:
            from adafocus.methods.adafocus_v1.model_tsm import AdaFocusV1TSM

            return AdaFocusV1TSM(
                glance,
                focus,
                glance_segments=frames.glance,
                focus_segments=frames.focus,
                deviation=policy.deviation,
                policy_norm=policy.norm,
                **shared,
            )
        from adafocus.methods.adafocus_v1.model import AdaFocusV1

        return AdaFocusV1(
            glance,
            focus,
            segments=frames.glance,
            glance_size=backbone.glance_size,
            grid=policy.grid,
            policy_convolution=policy.convolution,
            classifier_hidden=backbone.classifier_width,
            head_dropout=self.config.schedule.head_dropout,
            **shared,
        )

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """See `Method.stage`. With stage=all, the network is evaluated as in the last stage."""
        from adafocus.methods.adafocus_v1.stages import PolicyStage, SupervisedStage

        config, policy = self.config, self.config.policy
        name = self.stages[-1] if config.stage.name == "all" else config.stage.name
        # The dropout probabilities differ between stages, which train the same network.
        network.set_dropout(config.schedule.dropout, config.schedule.head_dropout)
        shared = {"seed": config.seed, "rates": config.schedule.lr_mults, "controls": config.evaluate.controls}
        if name != "2":
            return SupervisedStage(network, normalize, name=name, **shared)
        return PolicyStage(
            network,
            normalize,
            reward=policy.reward,
            gamma=policy.gamma,
            clip=policy.clip,
            value_weight=policy.value_weight,
            entropy_weight=policy.entropy_weight,
            epochs=policy.epochs,
            minibatches=policy.minibatches,
            **shared,
        )
