"""Uni-AdaFocus (arXiv 2412.11228): chooses frames and rectangles of variable size; with early exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, segment_centers
from adafocus.methods import options as shared
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options
from adafocus.methods.uni_adafocus import options as own

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network
    from adafocus.methods.uni_adafocus.model import UniAdaFocus
    from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM


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
        """Width of the classifier of the published network; the widths of the policies are separate options."""
        return Widths(None, None if self.on_tsm else 4096)

    @property
    def options(self) -> frozenset[type[Options]]:
        depending = shared.Background if self.on_tsm else shared.Dropout
        found = {shared.GlanceSize, shared.GlanceResize, shared.Candidates, shared.Where, shared.FrozenNorm, depending}
        return super().options | own.OWN | found

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """Parts that `schedule.lr_mults` must name; on TSM there is no classifier over both networks."""
        return tuple(part for part in self.lr_parts if part != "classifier" or not self.on_tsm)

    def check(self) -> None:
        super().check()
        self.check_where()
        segments, patch, (focus, pool) = self.config.segments, self.config.patch, self.chosen()
        if pool < max(focus, segments.glance):
            raise UserError(
                f"segments.pool={pool} is less than the {max(focus, segments.glance)} frames that are taken from these "
                f"candidates; raise segments.pool"
            )
        if not self.on_tsm:
            self.check_candidates(pool)
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
        """Returns the frames of a clip: glance frames and candidates, which include the glance frames without TSM."""
        glance, (focus, candidates) = self.config.segments.glance, self.chosen()
        first = () if self.on_tsm else tuple(segment_centers(candidates, glance))
        return FramePlan(glance, focus, candidates, first)

    def chosen(self) -> tuple[int, int]:
        """Returns the numbers of focus frames and of candidates, configured or by default."""
        glance, pool = self.config.segments.glance, self.read(shared.Candidates).pool
        focus = self.config.segments.focus or (glance * 3 // 2 if self.on_tsm else glance)
        return focus, pool or (3 * focus if self.on_tsm else -(-3 * focus // glance) * glance)

    def network_class(self) -> Callable[..., Network]:
        if self.on_tsm:
            from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM

            return UniAdaFocusTSM
        from adafocus.methods.uni_adafocus.model import UniAdaFocus

        return UniAdaFocus

    def arguments(self) -> dict[str, Any]:
        frames, dropout = self.frame_plan(), self.config.schedule.head_dropout
        arguments = {
            "glance_segments": frames.glance,
            "focus_segments": frames.focus,
            "candidates": frames.candidates,
            "temperature": self.read(own.TemporalPolicy).temperature,
            **super().arguments(),
            **self.values(shared.GlanceSize, shared.GlanceResize, own.PolicyWidths, own.Rectangle),
        }
        if self.on_tsm:
            return arguments | {"dropout": dropout} | self.values(shared.Background)
        return arguments | {"head_dropout": dropout} | self.values(shared.ClassifierWidth, shared.Dropout)

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.methods.uni_adafocus.stage import UniAdaFocusStage

        return UniAdaFocusStage(
            cast("UniAdaFocus | UniAdaFocusTSM", network),
            normalize,
            draws=self.read(own.TemporalPolicy).draws,
            **self.values(shared.Where, own.When, own.Losses, shared.Controls),
            **self.stage_arguments(network),
        )
