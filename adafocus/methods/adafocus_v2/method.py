"""AdaFocus V2 (arXiv 2112.14238): differentiable patch selection, trained end to end in one stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, coarse_to_fine
from adafocus.core.registry import POLICIES
from adafocus.methods import options as shared
from adafocus.methods.adafocus_v2.options import Diversity, HeatMap, Order, Policy
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.adafocus_v2.model import AdaFocusV2
    from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
    from adafocus.methods.network import Network


class AdaFocusV2Method(Method):
    """AdaFocus V2: one patch per frame and early exit on plain backbones, one patch location per video on TSM."""

    name = "adafocus_v2"

    @property
    def exits_early(self) -> bool:
        """True: the network predicts after every frame, or on TSM after the glance."""
        return True

    @property
    def whole_glance_before(self) -> bool:
        """True on TSM, where version 0.1 ignored `backbone.glance_size`."""
        return self.on_tsm

    @property
    def widths(self) -> Widths:
        """Widths of the published networks; 32 for a heat map."""
        policy, classifier = (1024, None) if self.on_tsm else (2048, 4096)
        return Widths(32 if self.config.policy.name == "heatmap" else policy, classifier)

    @property
    def options(self) -> frozenset[type[Options]]:
        plain = {shared.Consensus} if self.on_tsm else {Order, shared.Dropout}
        policy = {Policy, HeatMap} if self.config.policy.name == "heatmap" else {Policy}
        own = {Diversity, shared.GlanceSize, shared.GlanceResize, shared.Where, shared.FrozenNorm}
        return super().options | own | policy | plain

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """Parts that `schedule.lr_mults` must name; on TSM there is no classifier over both networks."""
        return tuple(part for part in self.lr_parts if part != "classifier" or not self.on_tsm)

    def check(self) -> None:
        super().check()
        self.check_same_frames()
        if self.read(shared.Where).where == "oracle" and self.config.dataset.source != "glyphs":
            raise UserError("method.where=oracle needs dataset=glyphs: only of synthetic videos is the place known")
        policy = self.read(Policy)
        if policy.options and policy.name not in POLICIES:
            raise UserError(f"policy.options are for plug-ins' policies; leave them out with policy.name={policy.name}")
        if policy.name == "heatmap":
            self._check_heat_map(self.read(HeatMap))

    def _check_heat_map(self, heat: HeatMap) -> None:
        if not self.on_tsm and (heat.motion or heat.peaks > 1):
            raise UserError(
                "policy.motion and policy.peaks need a backbone with the temporal shift, as backbone=mbv2_tsm_branch; "
                "on plain backbones each frame has one patch, which is chosen before the next frame is read"
            )
        if self.config.patch.size >= self.config.dataset.frame_size:
            raise UserError("policy.name=heatmap has no choice if the patch is the frame; choose a smaller patch.size")
        if heat.places_weight and not self.read(Diversity).diversity:
            raise UserError(
                "policy.places_weight learns from the random patches of method.diversity=true; set one of them"
            )
        if not heat.learned and (heat.places_weight or not heat.through_crop or not heat.motion):
            raise UserError(
                "policy.learned=false puts patches where most moves: it needs policy.motion=true, and "
                "policy.places_weight and policy.through_crop have no effect; leave them out or set policy.learned=true"
            )
        if not heat.through_crop and not heat.places_weight and not heat.motion:
            raise UserError("policy.through_crop=false leaves nothing to learn from; set policy.places_weight=1")

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Returns the frames of a clip: the same for both networks; on TSM also focus frames (default 3/2 as many)."""
        segments = self.config.segments
        if self.on_tsm:
            focus = segments.focus or segments.glance * 3 // 2
            return FramePlan(segments.glance, focus, candidates=focus if deferred else 0)
        if not deferred:
            return FramePlan(segments.glance)
        first = coarse_to_fine(segments.glance)[0] if self.read(Order).order == "coarse_to_fine" else 0
        return FramePlan(segments.glance, candidates=segments.glance, first=(first,))

    def network_class(self) -> Callable[..., Network]:
        if self.on_tsm:
            from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM

            return AdaFocusV2TSM
        from adafocus.methods.adafocus_v2.model import AdaFocusV2

        return AdaFocusV2

    def arguments(self) -> dict[str, Any]:
        frames, dropout = self.frame_plan(), self.config.schedule.head_dropout
        arguments = super().arguments() | self.policy()
        arguments |= self.values(shared.PolicyWidth, shared.GlanceSize, shared.GlanceResize)
        if self.on_tsm:
            return arguments | {
                "glance_segments": frames.glance,
                "focus_segments": frames.focus,
                "dropout": dropout,
                **self.values(shared.Consensus),
            }
        arguments |= self.values(shared.ClassifierWidth, shared.Dropout, Order)
        return arguments | {"segments": frames.glance, "head_dropout": dropout}

    def policy(self) -> dict[str, Callable[..., nn.Module]]:
        """Returns the network's argument `policy`, for another policy than the paper's; empty for the paper's."""
        policy = self.read(Policy)
        if policy.name == "paper":
            return {}
        if policy.name == "heatmap":
            from adafocus.policies.heat_map import HeatMapPolicy

            share = self.config.patch.size / self.config.dataset.frame_size
            options = self.values(HeatMap)
            del options["places_weight"]
            return {"policy": partial(HeatMapPolicy, patch=share, per_clip=self.on_tsm, **options)}
        return {"policy": partial(POLICIES[policy.name], **policy.options)}

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.methods.adafocus_v2.stage import JointStage

        return JointStage(
            cast("AdaFocusV2 | AdaFocusV2TSM", network),
            normalize,
            places_weight=self.read(HeatMap).places_weight if HeatMap in self.options else 0.0,
            **self.values(shared.Where, shared.Controls, Diversity),
            **self.stage_arguments(network),
        )
