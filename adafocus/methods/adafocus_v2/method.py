"""AdaFocus V2 (arXiv 2112.14238): differentiable patch selection, trained end to end in one stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, coarse_to_fine
from adafocus.core.registry import POLICIES
from adafocus.methods.base import Method, Widths

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
    def reads(self) -> frozenset[str]:
        """See `Method.reads`."""
        plain = ("backbone.glance_size", "backbone.glance_resize", "method.order", "schedule.dropout")
        own = {"method.where", "policy.name", "policy.options", "schedule.freeze_norm"}
        return super().reads | own | (set() if self.on_tsm else set(plain))

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """See `Method.needed_lr_parts`; on TSM there is no classifier over both networks."""
        return tuple(part for part in self.lr_parts if part != "classifier" or not self.on_tsm)

    def check(self) -> None:
        """See `Method.check`."""
        super().check()
        self.check_same_frames()
        if self.config.policy.options and self.config.policy.name not in POLICIES:
            raise UserError(
                f"policy.options are for a policy of a plug-in, not for policy.name={self.config.policy.name}"
            )

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Both networks see the same frames; on TSM the focus network has its own, by default 3/2 as many."""
        segments = self.config.segments
        if self.on_tsm:
            return FramePlan(segments.glance, segments.focus or segments.glance * 3 // 2)
        if not deferred:
            return FramePlan(segments.glance)
        first = coarse_to_fine(segments.glance)[0] if self.config.method.order == "coarse_to_fine" else 0
        return FramePlan(segments.glance, candidates=segments.glance, first=(first,))

    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """See `Method.network`."""
        backbone, schedule, frames = self.config.backbone, self.config.schedule, self.frame_plan()
        shared = {
            "num_classes": num_classes,
            "patch_size": self.config.patch.size,
            "frame_size": self.config.dataset.frame_size,
            **self.policy(),
        }
        if self.on_tsm:
            from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM

            return AdaFocusV2TSM(
                glance,
                focus,
                glance_segments=frames.glance,
                focus_segments=frames.focus,
                policy_hidden=backbone.policy_hidden,
                dropout=schedule.head_dropout,
                **shared,
            )
        from adafocus.methods.adafocus_v2.model import AdaFocusV2

        return AdaFocusV2(
            glance,
            focus,
            segments=frames.glance,
            glance_size=backbone.glance_size,
            glance_resize=backbone.glance_resize,
            policy_hidden=backbone.policy_hidden,
            classifier_width=backbone.classifier_width,
            dropout=schedule.dropout,
            head_dropout=schedule.head_dropout,
            order=self.config.method.order,
            **shared,
        )

    def policy(self) -> dict[str, Callable[..., nn.Module]]:
        """The argument of the network for a plug-in's policy; none for the paper's, which is its default."""
        policy = self.config.policy
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
            where=config.method.where,
            controls=config.evaluate.controls,
            frozen_norm=batch_norms(network) if config.schedule.freeze_norm else [],
        )
