"""AdaFocus V2 (arXiv 2112.14238): differentiable patch selection, trained end to end in one stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, coarse_to_fine
from adafocus.core.registry import POLICIES
from adafocus.methods import options as shared
from adafocus.methods.adafocus_v2.options import Order, Policy
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage


class AdaFocusV2Method(Method):
    """AdaFocus V2: one patch per frame and early exit on plain backbones, one patch location per video on TSM."""

    name = "adafocus_v2"

    @property
    def exits_early(self) -> bool:
        """True on plain backbones, where the network predicts after every frame."""
        return not self.on_tsm

    @property
    def widths(self) -> Widths:
        """Those of the released networks."""
        return Widths(1024, None) if self.on_tsm else Widths(2048, 4096)

    @property
    def options(self) -> frozenset[type[Options]]:
        """See `Method.options`."""
        plain = set() if self.on_tsm else {shared.GlanceSize, shared.GlanceResize, Order, shared.Dropout}
        return super().options | {shared.Where, Policy, shared.FrozenNorm} | plain

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """See `Method.needed_lr_parts`; on TSM there is no classifier over both networks."""
        return tuple(part for part in self.lr_parts if part != "classifier" or not self.on_tsm)

    def check(self) -> None:
        """See `Method.check`."""
        super().check()
        self.check_same_frames()
        policy = self.read(Policy)
        if policy.options and policy.name not in POLICIES:
            raise UserError(f"policy.options are for a policy of a plug-in, not for policy.name={policy.name}")

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Both networks see the same frames; on TSM the focus network has its own, by default 3/2 as many."""
        segments = self.config.segments
        if self.on_tsm:
            return FramePlan(segments.glance, segments.focus or segments.glance * 3 // 2)
        if not deferred:
            return FramePlan(segments.glance)
        first = coarse_to_fine(segments.glance)[0] if self.read(Order).order == "coarse_to_fine" else 0
        return FramePlan(segments.glance, candidates=segments.glance, first=(first,))

    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """See `Method.network`."""
        frames, head_dropout = self.frame_plan(), self.config.schedule.head_dropout
        arguments = self.arguments(num_classes) | self.values(shared.PolicyWidth) | self.policy()
        if self.on_tsm:
            from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM

            return AdaFocusV2TSM(
                glance,
                focus,
                glance_segments=frames.glance,
                focus_segments=frames.focus,
                dropout=head_dropout,
                **arguments,
            )
        from adafocus.methods.adafocus_v2.model import AdaFocusV2

        return AdaFocusV2(
            glance,
            focus,
            segments=frames.glance,
            head_dropout=head_dropout,
            **arguments,
            **self.values(shared.GlanceSize, shared.GlanceResize, shared.ClassifierWidth, shared.Dropout, Order),
        )

    def policy(self) -> dict[str, Callable[..., nn.Module]]:
        """The argument of the network for a plug-in's policy; none for the paper's, which is its default."""
        policy = self.read(Policy)
        return {} if policy.name == "paper" else {"policy": partial(POLICIES[policy.name], **policy.options)}

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """See `Method.stage`."""
        from adafocus.core.stage import batch_norms
        from adafocus.methods.adafocus_v2.stage import JointStage

        config = self.config
        return JointStage(
            network,
            normalize,
            seed=config.seed,
            rates=config.schedule.lr_mults,
            **self.values(shared.Where, shared.Controls),
            frozen_norm=batch_norms(network) if config.schedule.freeze_norm else [],
        )
