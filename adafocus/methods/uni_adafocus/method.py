"""Uni-AdaFocus (arXiv 2412.11228): chooses frames and rectangles of variable size; with early exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, segment_centers
from adafocus.methods.base import Method, Widths

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage


class UniAdaFocusMethod(Method):
    """Uni-AdaFocus: one rectangle per frame on plain backbones, one per video on TSM."""

    name = "uni_adafocus"
    train_frames = test_frames = "fractional"
    lr_parts = ("glance", "focus", "classifier", "temporal", "spatial")

    @property
    def exits_early(self) -> bool:
        """True: there is an exit after the glance and, on plain backbones, after every focus frame."""
        return True

    @property
    def widths(self) -> Widths:
        """That of the released network; its policies have widths of their own."""
        return Widths(None, None if self.on_tsm else 4096)

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`."""
        own = (
            *("backbone.glance_size", "backbone.glance_resize", "backbone.spatial_hidden", "backbone.temporal_hidden"),
            *("patch.smallest", "segments.pool", "method.where", "method.when", "policy.temperature", "policy.draws"),
            *("schedule.size_weight", "schedule.kl_weight", "schedule.freeze_norm"),
        )
        return super().reads | {*own, "method.remove_background" if self.on_tsm else "schedule.dropout"}

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """See `Method.needed_lr_parts`; on TSM there is no classifier over both networks."""
        return tuple(part for part in self.lr_parts if part != "classifier" or not self.on_tsm)

    def check(self) -> None:
        """See `Method.check`."""
        super().check()
        segments, patch = self.config.segments, self.config.patch
        focus, pool = segments.chosen(not self.on_tsm)
        if pool < focus:
            raise UserError(
                f"segments.pool={pool} candidates are fewer than the {focus} frames to choose; raise segments.pool"
            )
        if not self.on_tsm and pool % segments.glance:
            raise UserError(
                f"segments.pool={pool} must be a multiple of segments.glance={segments.glance}: the glance frames are "
                f"taken from the candidates at equal distances"
            )
        smallest = patch.smallest or 3 * self.config.dataset.frame_size / 7
        if patch.size < smallest:
            raise UserError(
                f"patch.size={patch.size} is below the smallest rectangle of {smallest:g} pixels; choose a larger "
                f"patch or a smaller patch.smallest"
            )
        if self.config.dataset.separate_crops and not self.on_tsm:
            raise UserError(
                "dataset.separate_crops=true needs a backbone with the temporal shift: on plain backbones the glance "
                "frames are among the candidates; leave it out"
            )

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Focus frames are chosen from candidates; on plain backbones the glance frames are among the candidates."""
        segments = self.config.segments
        focus, candidates = segments.chosen(not self.on_tsm)
        first = () if self.on_tsm else tuple(segment_centers(candidates, segments.glance))
        return FramePlan(segments.glance, focus, candidates, first)

    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """See `Method.network`."""
        config, backbone, schedule = self.config, self.config.backbone, self.config.schedule
        frames = self.frame_plan()
        shared = {
            "num_classes": num_classes,
            "glance_segments": frames.glance,
            "focus_segments": frames.focus,
            "candidates": frames.candidates,
            "patch_size": config.patch.size,
            "smallest": config.patch.smallest,
            "frame_size": config.dataset.frame_size,
            "glance_size": backbone.glance_size,
            "glance_resize": backbone.glance_resize,
            "spatial_hidden": backbone.spatial_hidden,
            "temporal_hidden": backbone.temporal_hidden,
            "temperature": config.policy.temperature,
        }
        if self.on_tsm:
            from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM

            background = config.method.remove_background
            return UniAdaFocusTSM(glance, focus, dropout=schedule.head_dropout, remove_background=background, **shared)
        from adafocus.methods.uni_adafocus.model import UniAdaFocus

        return UniAdaFocus(
            glance,
            focus,
            classifier_width=backbone.classifier_width,
            dropout=schedule.dropout,
            head_dropout=schedule.head_dropout,
            **shared,
        )

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """See `Method.stage`."""
        from adafocus.core.stage import batch_norms
        from adafocus.methods.uni_adafocus.stage import UniAdaFocusStage

        config = self.config
        return UniAdaFocusStage(
            network,
            normalize,
            seed=config.seed,
            rates=config.schedule.lr_mults,
            where=config.method.where,
            when=config.method.when,
            size_weight=config.schedule.size_weight,
            kl_weight=config.schedule.kl_weight,
            draws=config.policy.draws,
            controls=config.evaluate.controls,
            frozen_norm=batch_norms(network) if config.schedule.freeze_norm else [],
        )
