"""AdaFocus V1: glance at every frame, focus on one patch of each at a place that a policy draws.

Both forms have the same verbs, which the stages use: `see` (glance), `decide` (policy), `judge` (focus and classify),
`compare` (the same with another patch in every single step).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus.core.output import Output
from adafocus.layers.crop import SquarePatches
from adafocus.layers.precision import full_precision, widen
from adafocus.policies.actor_critic import Decision, GaussianPolicy, GridPolicy


@dataclass
class Glanced:
    """What the glance network saw: `maps` (B, S, D, h, w) for the policy's S steps, `features` for the classifier."""

    maps: Tensor
    features: Tensor


def cut(frames: Tensor, where: Tensor, size: int) -> Tensor:
    """Square patches at whole pixels: the corner is floor(where * (S - P)).

    Args:
        frames: (N, C, S, S).
        where: (N, 2) fractions (y, x).
        size: P.

    Returns:
        (N, C, P, P), channels-last: one gather of whole pixels.
    """
    side = frames.shape[-1]
    # A cell's fraction times the range may fall a rounding error (1e-5 pixels) below a whole number.
    corner = (where.float() * (side - size) + 1e-4).floor().long().clamp(0, side - size)
    span = torch.arange(size, device=frames.device)
    rows, columns = corner[:, :1] + span, corner[:, 1:] + span
    sample = torch.arange(frames.shape[0], device=frames.device)[:, None, None]
    return frames.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


class StepClassifier(nn.Module):
    """A GRU over the steps of a video and a linear layer on each of its states."""

    def __init__(self, channels: int, num_classes: int, hidden: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) to logits (B, S, K) and states (B, S, hidden) after each step."""
        with full_precision(features):
            states, _ = self.gru(widen(features))
            return self.head(self.dropout(states)), states

    def instead(self, features: Tensor, states: Tensor) -> Tensor:
        """Logits (B, S, K) if step t had seen `features[:, t]`, after the states that the real steps before it left."""
        with full_precision(features):
            before = functional.pad(states[:, :-1], (0, 0, 1, 0)).flatten(0, 1)[None]
            after, _ = self.gru(widen(features).flatten(0, 1)[:, None], before.contiguous())
            return self.head(self.dropout(after[:, 0])).unflatten(0, features.shape[:2])


class _Verbs(SquarePatches, nn.Module):
    """What both forms share: the ways to call them."""

    policy: GridPolicy | GaussianPolicy

    def forward(
        self,
        frames: Tensor | None,
        where: Tensor | None = None,
        *,
        alone: str | None = None,
        maps: Tensor | None = None,
    ) -> Output | Decision:
        """
        Args:
            frames: (B, T, 3, S, S), normalized, in temporal order; on TSM the glance frames, then the focus frames.
            where: (B, places, 2) fractions of the free range, as (y, x); None asks the policy for its best.
            alone: "glance" or "focus": that network on whole frames.
            maps: of `see`: what the policy makes of them is all that is wanted. (A call, so that processes share gradients.)
        """
        if maps is not None:
            return self.policy(maps)
        if alone is not None:
            return self.whole_frames(frames, alone)
        glanced = self.see(frames)
        if where is None:
            where = self.policy.where(self.policy.best(self.policy(glanced.maps)))
        return self.judge(frames, glanced, where)

    def decide(self, glanced: Glanced) -> Decision:
        return self.policy(glanced.maps)


class AdaFocusV1(_Verbs):
    """The form for untrimmed videos: one patch a frame, a grid of places, a GRU classifier.

    Args:
        glance, focus: backbones.
        num_classes, segments: K, T.
        patch_size, frame_size: in pixels.
        glance_size: side of the frames that the glance sees (nearest neighbors); None: frame_size.
        cells, policy_hidden, policy_convolution: of the policy.
        classifier_hidden, dropout: of the classifier.
        head_dropout: of the glance network's own head, which only its first training uses.

    Source: arXiv 2105.03245; spec adafocus_v1 section 2.1.
    """

    def __init__(
        self,
        glance: nn.Module,
        focus: nn.Module,
        *,
        num_classes: int,
        segments: int,
        patch_size: int,
        frame_size: int = 224,
        glance_size: int | None = None,
        cells: int = 7,
        policy_hidden: int = 1024,
        policy_convolution: bool = True,
        classifier_hidden: int = 1024,
        dropout: float = 0.5,
        head_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        self.glance, self.focus = glance, focus
        self.segments, self.places = segments, segments
        self.patch_size, self.frame_size, self.glance_size = patch_size, frame_size, glance_size or frame_size
        self.policy = GridPolicy(
            glance.width,
            glance.map_size(self.glance_size),
            cells=cells,
            hidden=policy_hidden,
            convolution=policy_convolution,
        )
        self.glance_head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(glance.width, num_classes))
        self.focus_head = nn.Linear(focus.width, num_classes)
        self.classifier = StepClassifier(glance.width + focus.width, num_classes, classifier_hidden, dropout)

    parts = {
        "glance": ("glance",),
        "policy": ("policy.encoder", "policy.gru", "policy.actor"),
        "focus": ("focus",),
        "head": ("classifier",),
        "auxiliary critic": ("policy.critic",),
        "auxiliary glance": ("glance_head",),
        "auxiliary focus": ("focus_head",),
    }

    def see(self, frames: Tensor) -> Glanced:
        flat = frames.flatten(0, 1)
        if self.glance_size != flat.shape[-1]:
            flat = functional.interpolate(flat, (self.glance_size, self.glance_size))
        maps = self.glance(flat).unflatten(0, frames.shape[:2])
        return Glanced(maps, maps.mean((-2, -1)))

    def judge(self, frames: Tensor, glanced: Glanced, where: Tensor) -> Output:
        features = self._focused(frames, where)
        steps, _ = self.classifier(torch.cat((glanced.features, features), -1))
        return Output(steps[:, -1], steps, where)

    def compare(self, frames: Tensor, glanced: Glanced, where: Tensor, other: Tensor | None) -> tuple[Output, Tensor]:
        """The chosen patches, and step logits (B, T, K) with another patch in single steps; `other` None: an empty one."""
        if other is None:
            chosen = self._focused(frames, where)
            empty = frames.new_zeros(1, frames.shape[2], self.patch_size, self.patch_size)
            instead = self.focus(empty).mean((-2, -1)).expand(*chosen.shape[:2], -1)
        else:  # both in one batch through the focus network
            chosen, instead = self._focused(frames, where, other).chunk(2)
        steps, states = self.classifier(torch.cat((glanced.features, chosen), -1))
        baseline = self.classifier.instead(torch.cat((glanced.features, instead), -1), states)
        return Output(steps[:, -1], steps, where), baseline

    def whole_frames(self, frames: Tensor, network: str) -> Output:
        """The glance or the focus network alone, with its own head, on whole frames."""
        if network == "glance":
            features, head = self.see(frames).features, self.glance_head
        else:
            features = self.focus(frames.flatten(0, 1)).mean((-2, -1)).unflatten(0, frames.shape[:2])
            head = self.focus_head
        with full_precision(features):
            logits = head(widen(features))
        return Output(logits.mean(1), per_frame=logits)

    def _focused(self, frames: Tensor, *where: Tensor) -> Tensor:
        """Focus features (n B, T, D) of the same frames at n sets of places, in one batch."""
        flat = frames.flatten(0, 1)
        patches = torch.cat([cut(flat, places.flatten(0, 1), self.patch_size) for places in where])
        return self.focus(patches).mean((-2, -1)).unflatten(0, (-1, frames.shape[1]))


class AdaFocusV1TSM(_Verbs):
    """The form for short videos on TSM: one place a video, the sum of both networks' logits.

    Args:
        glance, focus: backbones with temporal modules for `glance_segments` and `focus_segments` frames.
        deviation, policy_hidden, policy_norm: of the policy.
        dropout: before the focus network's head.

    Source: arXiv 2105.03245; spec adafocus_v1 section 2.2.
    """

    places = 1

    def __init__(
        self,
        glance: nn.Module,
        focus: nn.Module,
        *,
        num_classes: int,
        glance_segments: int,
        focus_segments: int,
        patch_size: int,
        frame_size: int = 224,
        deviation: float = 0.25,
        policy_hidden: int = 1024,
        policy_norm: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        self.glance, self.focus = glance, focus
        self.glance_segments, self.focus_segments = glance_segments, focus_segments
        self.patch_size, self.frame_size = patch_size, frame_size
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

    parts = {
        "glance": ("glance", "glance_head"),
        "policy": ("policy.encoder", "policy.gru", "policy.actor"),
        "focus": ("focus",),
        "head": ("classifier",),
        "auxiliary critic": ("policy.critic",),
    }

    def see(self, frames: Tensor) -> Glanced:
        """`features` are the glance network's logits (B, K)."""
        shown = frames[:, : self.glance_segments]
        maps = self.glance(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
        with full_precision(maps):
            logits = self.glance_head(widen(maps.mean((-2, -1)))).mean(1)
        return Glanced(maps.flatten(1, 2)[:, None], logits)

    def judge(self, frames: Tensor, glanced: Glanced, where: Tensor) -> Output:
        logits = glanced.features + self.local(frames[:, self.glance_segments :], where)
        return Output(logits, logits[:, None], where)

    def local(self, shown: Tensor, *where: Tensor) -> Tensor:
        """The focus network's logits (n B, K) of the same focus frames at n places a video, in one batch."""
        flat, corners = shown.flatten(0, 1), [place.expand(-1, shown.shape[1], -1).flatten(0, 1) for place in where]
        features = self.focus(torch.cat([cut(flat, corner, self.patch_size) for corner in corners])).mean((-2, -1))
        with full_precision(features):
            return self.classifier(self.dropout(widen(features))).unflatten(0, (-1, shown.shape[1])).mean(1)

    def compare(self, frames: Tensor, glanced: Glanced, where: Tensor, other: Tensor | None) -> tuple[Output, Tensor]:
        """The chosen patch, and step logits (B, 1, K) with another one; `other` None: an empty one."""
        if other is None:
            empty = self.judge(torch.zeros_like(frames), glanced, where)
            return self.judge(frames, glanced, where), empty.steps
        chosen, instead = self.local(frames[:, self.glance_segments :], where, other).chunk(2)
        logits = glanced.features + chosen
        return Output(logits, logits[:, None], where), (glanced.features + instead)[:, None]

    def whole_frames(self, frames: Tensor, network: str) -> Output:
        """The glance or the focus network alone on its own frames, whole."""
        if network == "glance":
            return Output(self.see(frames).features)
        features = self.focus(frames[:, self.glance_segments :].flatten(0, 1)).mean((-2, -1))
        with full_precision(features):
            logits = self.classifier(self.dropout(widen(features))).unflatten(0, (frames.shape[0], -1))
        return Output(logits.mean(1), per_frame=logits)
