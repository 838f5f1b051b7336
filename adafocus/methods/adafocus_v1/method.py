"""AdaFocus V1 (arXiv 2105.03245): a patch policy trained by reinforcement learning, in stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan
from adafocus.methods import options as shared
from adafocus.methods.adafocus_v1.options import PPO, STAGES, PlainPolicy, TSMPolicy
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.adafocus_v1.model import ReinforcedNetwork
    from adafocus.methods.network import Network


class AdaFocusV1Method(Method):
    """AdaFocus V1: one patch per frame on plain backbones, one patch location per video on TSM."""

    name = "adafocus_v1"
    stages = STAGES

    @property
    def widths(self) -> Widths:
        """Widths of the published networks: 1024 for the policy and, on plain backbones, for the classifier."""
        return Widths(1024, None if self.on_tsm else 1024)

    @property
    def exits_early(self) -> bool:
        """True once there is a policy: after every frame on plain backbones, after the glance on TSM."""
        return self.config.stage.name in ("2", "3", "all")

    @property
    def options(self) -> frozenset[type[Options]]:
        found = {shared.Dropout, TSMPolicy} if self.on_tsm else {shared.Dropout, PlainPolicy, shared.GlanceSize}
        return super().options | found | ({PPO} if self.config.stage.name in ("2", "all") else set())

    @property
    def learns_from_labels(self) -> bool:
        """False for stage 2, which trains the policy from rewards; True for all other stages."""
        return self.config.stage.name != "2"

    @property
    def trains_backbones(self) -> bool:
        """False for stages 2 and 3, which train only the policy and only the classifier."""
        return self.config.stage.name not in ("2", "3")

    @property
    def not_needed(self) -> tuple[str, ...]:
        """The policy's keys in the stages before stage 2, which evaluate random patches."""
        return ("policy.",) if self.config.stage.name in ("glance", "focus", "1") else ()

    def check(self) -> None:
        super().check()
        self.check_same_frames()
        ppo = self.read(PPO)
        if self.config.schedule.accumulation_steps > 1 and ppo.epochs * ppo.minibatches > 1:
            raise UserError(
                f"schedule.accumulation_steps={self.config.schedule.accumulation_steps} must be 1 if policy.epochs or "
                f"policy.minibatches is above 1, because PPO then makes several optimizer steps per batch"
            )

    def check_start(self) -> None:
        stage, init = self.config.stage.name, self.config.init
        if stage == "1" and not (init.get("glance") and init.get("focus")):
            raise UserError(
                "stage=1 starts from trained glance and focus networks: set init.from=RUN_OR_FILE, or init.glance=FILE "
                "and init.focus=FILE (init.from=none starts from random ones)"
            )
        if stage in ("2", "3"):
            raise UserError(
                f"stage={stage} starts from the networks of stage {int(stage) - 1}: set init.from=RUN_OR_FILE "
                f"(init.from=none starts from random ones)"
            )

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Returns the frames of a clip: the same for both networks; on TSM also focus frames (default 3/2 as many)."""
        segments = self.config.segments
        if self.on_tsm:
            focus = segments.focus or segments.glance * 3 // 2
            return FramePlan(segments.glance, focus, candidates=focus if deferred else 0)
        return (
            FramePlan(segments.glance, candidates=segments.glance, first=(0,))
            if deferred
            else FramePlan(segments.glance)
        )

    def network_class(self) -> Callable[..., Network]:
        if self.on_tsm:
            from adafocus.methods.adafocus_v1.model_tsm import AdaFocusV1TSM

            return AdaFocusV1TSM
        from adafocus.methods.adafocus_v1.model import AdaFocusV1

        return AdaFocusV1

    def arguments(self) -> dict[str, Any]:
        frames = self.frame_plan()
        arguments = super().arguments() | self.values(shared.PolicyWidth, shared.Dropout)
        if self.on_tsm:
            policy = self.read(TSMPolicy)
            arguments |= {"glance_segments": frames.glance, "focus_segments": frames.focus}
            return arguments | {"deviation": policy.deviation, "policy_norm": policy.norm}
        plain = self.read(PlainPolicy)
        arguments |= self.values(shared.GlanceSize, shared.ClassifierWidth)
        arguments |= {"grid": plain.grid, "policy_convolution": plain.convolution}
        return arguments | {"segments": frames.glance, "head_dropout": self.config.schedule.head_dropout}

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """Makes the configured stage; for stage=all the last one, as which the network is evaluated."""
        from adafocus.methods.adafocus_v1.stages import PolicyStage, SupervisedStage

        config, model = self.config, cast("ReinforcedNetwork", network)
        name = self.stages[-1] if config.stage.name == "all" else config.stage.name
        # The dropout probabilities differ between stages, which train the same network.
        model.set_dropout(config.schedule.dropout, config.schedule.head_dropout)
        arguments = {"seed": config.seed, "rates": config.schedule.lr_mults, "controls": config.evaluate.controls}
        if name != "2":
            return SupervisedStage(model, normalize, name=name, **arguments)
        return PolicyStage(model, normalize, **self.values(PPO), **arguments)
