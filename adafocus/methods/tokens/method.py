"""TokenFocus: a vision transformer that processes only the patches that a policy chose in time and space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan, segment_centers
from adafocus.methods import options as shared
from adafocus.methods.base import Method, Widths
from adafocus.methods.options import Options
from adafocus.methods.tokens import options as own

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network
    from adafocus.methods.tokens.model import TokenFocus


class TokensMethod(Method):
    """TokenFocus, a method of this package: a vision transformer that processes chosen tokens only."""

    name = "tokens"
    train_frames = test_frames = "fractional"
    lr_parts = needed_lr_parts = ("glance", "focus", "policy")

    @property
    def exits_early(self) -> bool:
        """True: there is an exit after the glance and after every group of tokens."""
        return True

    @property
    def widths(self) -> Widths:
        """Width of the policy; there is no classifier over both networks."""
        return Widths(64, None)

    @property
    def options(self) -> frozenset[type[Options]]:
        """Options as in other methods with a glance network, but without patch size and number of focus frames."""
        found = {shared.GlanceSize, shared.GlanceResize, shared.Candidates, shared.Where, shared.FrozenNorm}
        return super().options - {shared.Patch, shared.FocusFrames} | own.OWN | found

    def check(self) -> None:
        self.check_where()
        backbone, (low, high) = self.config.backbone, self.read(own.KeepRange).keep_range
        if self.on_tsm or backbone.adaptive or backbone.non_local or backbone.temporal_pool:
            raise UserError(
                "method=tokens takes backbones without temporal modules, because its tokens attend to each other over "
                "time: set backbone=tiny_vit, or another one with backbone.shift=none"
            )
        if low > high:
            raise UserError(f"schedule.keep_range=[{low:g},{high:g}] must have the smaller share first")
        self.check_candidates(self.frame_plan().candidates)

    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Returns the frames of a clip: candidates that hold the cells, and glance frames among them (default: all)."""
        glance = self.config.segments.glance
        candidates = self.read(shared.Candidates).pool or glance
        first = segment_centers(candidates, glance) if candidates >= glance else ()
        return FramePlan(glance, candidates=candidates, first=tuple(first))

    def network_class(self) -> Callable[..., Network]:
        from adafocus.methods.tokens.model import TokenFocus

        return TokenFocus

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the network, without a patch size, which is the vision transformer's."""
        plan = self.frame_plan()
        return {
            "glance_segments": plan.glance,
            "candidates": plan.candidates,
            "frame_size": self.config.dataset.frame_size,
            "dropout": self.config.schedule.head_dropout,
            **self.values(shared.GlanceSize, shared.GlanceResize, shared.PolicyWidth, own.Tokens),
        }

    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        from adafocus.methods.tokens.stage import TokenStage

        values = self.values(shared.Where, own.KeepRange, shared.Controls)
        return TokenStage(cast("TokenFocus", network), normalize, **values, **self.stage_arguments(network))
