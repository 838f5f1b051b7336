"""AdaFocus V1 on TSM backbones: one patch location per video.

Source: arXiv 2105.03245 section 4.3; blackfeather-wang/AdaFocus, models/gfv_net.py and models/ppo_continuous.py of the
experiments on Something-Something.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.core.cost import Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import cut
from adafocus.layers.precision import full_precision, widen
from adafocus.methods.adafocus_v1.model import ReinforcedNetwork
from adafocus.methods.network import GlanceExit
from adafocus.policies.actor_critic import GaussianPolicy


class AdaFocusV1TSM(ReinforcedNetwork, GlanceExit):
    """AdaFocus V1 for short videos: one patch location per video; the prediction is the sum of both networks' logits.

    A clip holds the glance frames in temporal order, then the focus frames.

    Args:
        glance, focus: backbones with temporal modules for `glance_segments` and `focus_segments` frames.
        deviation, policy_hidden, policy_norm: `deviation`, `hidden` and `norm` of `GaussianPolicy`.
        dropout: dropout probability before the focus network's head.
    """

    num_places = 1
    place_per_frame = False
    glance_fields = ("maps", "logits")
    focus_fields = ("logits",)
    single_networks = {"glance": ("glance_net", "glance_head"), "focus": ("focus_net", "classifier", "dropout")}
    learning_modules = {**ReinforcedNetwork.learning_modules, "classifier": ("classifier", "dropout")}
    parts = (
        Part("glance", ("glance_net", "glance_head")),
        Part("policy", ("policy.encoder", "policy.gru", "policy.actor")),
        Part("focus", ("focus_net",)),
        Part("head", ("classifier",)),
        Part("critic", ("policy.critic",), auxiliary=True),
    )
    crop_values = 0  # patches are cut at integer pixels, without interpolation

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        frame_size: int = 224,
        deviation: float = 0.25,
        policy_hidden: int = 1024,
        policy_norm: bool = True,
        dropout: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(glance, focus, frame_size=frame_size, **options)
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.first_candidate = glance_segments
        self.policy = GaussianPolicy(
            glance_segments * glance.width,
            glance.map_size(frame_size),
            hidden=policy_hidden,
            deviation=deviation,
            norm=policy_norm,
        )
        self.glance_head = nn.Linear(glance.width, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(focus.width, num_classes)

    @property
    def frame_sets(self) -> dict[str, int]:
        """Number of frames of each network; the two see different frames."""
        return {"glance_frames": self.glance_segments, "focus_frames": self.focus_segments}

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """Selects the first `glance_segments` frames of a clip."""
        return frames[:, : self.glance_segments]

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Selects the frames of a clip after the glance frames."""
        return frames[:, self.glance_segments :]

    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on frames (B, G, 3, S, S); the maps of a clip are stacked to (B, 1, G * D, h, w)."""
        maps = self.glance_net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        features = maps.mean((-2, -1))
        with full_precision(maps):
            logits = self.glance_head(widen(features)).mean(1)
        return GlanceOutput(maps.flatten(1, 2)[:, None], features, logits)

    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on the same patch location of all focus frames (B, F, 3, S, S)."""
        first = given(glance.logits)
        logits = first + self._focused(frames, plan.where)
        return Output(logits, logits[:, None], plan.where, exit_logits=torch.stack([first, logits], 1))

    def first_logits(self, glance: GlanceOutput) -> Tensor:
        """See `GlanceExit.first_logits`; the glance network has one head, whose logits are half of the prediction."""
        return given(glance.logits)

    def compare(
        self, frames: Tensor, glance: GlanceOutput, where: Tensor, other: Tensor | None
    ) -> tuple[Output, Tensor]:
        if other is None:
            chosen, instead = self._focused(frames, where), self._focused(torch.zeros_like(frames), where)
        else:  # the focus network processes both sets of patches in one batch
            chosen, instead = self._focused(frames, where, other).chunk(2)
        glanced = given(glance.logits)
        logits = glanced + chosen
        return Output(logits, logits[:, None], where), (glanced + instead)[:, None]

    def whole_frames(self, frames: Tensor, network: str) -> Output:
        """Predicts with one network alone on whole frames, on its own frames of the clip."""
        if network == "glance":
            return Output(given(self.glance(self.glance_frames(frames, Overrides())).logits))
        shown = self.focus_frames(frames)
        features = self.focus_net(shown.flatten(0, 1)).mean((-2, -1))
        with full_precision(features):
            logits = self.classifier(self.dropout(widen(features))).unflatten(0, (frames.shape[0], -1))
        return Output(logits.mean(1), per_frame=logits)

    def set_dropout(self, classifier: float, head: float) -> None:
        """Sets the dropout probability of the classifier; `head` is ignored, since this glance head has no dropout."""
        self.dropout.p = classifier

    def _focused(self, frames: Tensor, *where: Tensor) -> Tensor:
        """Computes focus logits (n * B, K) of the same frames at n patch locations per video, in one batch."""
        flat, corners = frames.flatten(0, 1), [place.expand(-1, frames.shape[1], -1).flatten(0, 1) for place in where]
        features = self.focus_net(torch.cat([cut(flat, corner, self.patch_size) for corner in corners])).mean((-2, -1))
        with full_precision(features):
            return self.classifier(self.dropout(widen(features))).unflatten(0, (-1, frames.shape[1])).mean(1)
