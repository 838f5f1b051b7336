"""The records that networks return: glance features, patch locations and chosen frames, and predictions.

Letters of tensor shapes, in the whole package:

    B     clips in a batch (B' some of them, such as those that have not exited yet)
    T     frames of a clip, or steps of a step-by-step prediction
    G, F  frames that the glance network and the focus network see
    N     candidate frames, of which F are chosen
    E     exits: predictions after which a clip may stop
    K     classes
    V     views of a video in evaluation (clips times crops)
    D     channels of a feature map, h and w its height and width
    H, W  height and width of a frame; S the side of a square frame
    P     side of a square patch
    L     labels of a video, padded with -1

Frames that networks read are (B, frames, 3, S, S) float, normalized. A patch location (`where`) is a pair (y, x) in
[0, 1]: the patch's top left corner as a fraction of its largest offset, which is the frame's side minus the patch's.
docs/glossary.md explains the other terms.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

from torch import Tensor

Record = TypeVar("Record", bound="_Rows")
Field = TypeVar("Field")


def given(value: Field | None) -> Field:
    """Returns a field of a record that is optional in general but is set by the network at hand."""
    assert value is not None
    return value


@dataclass
class _Rows:
    """Base class of records whose tensors all have the batch as first dimension."""

    def rows(self: Record, keep: Tensor) -> Record:
        """Returns the record with only the clips that the boolean mask `keep` (B,) selects."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: value[keep] for name, value in values.items() if isinstance(value, Tensor)})


@dataclass
class GlanceOutput(_Rows):
    """Output of the glance network.

    Attributes:
        maps: (B, G, D, h, w) feature maps, the input of the policies. For policies that make one decision per video
            from all frames stacked on the channels (AdaFocus V1 on TSM): (B, 1, G * D, h, w).
        features: (B, G, D) spatial averages of the maps, after the dropout of the heads if they have one.
        logits: (B, K) glance logits of networks whose prediction is the sum of two networks' logits; else None.
        aux_logits: (B, G, K) per-frame logits of the auxiliary head that trains the glance network, if requested.
        steps: (B, G or 1, K) predictions from the glance frames alone (Uni-AdaFocus on plain backbones); else None.
        running_max: (B, W) maximum over the glance frames of the classifier's W hidden features, from which the later
            steps continue (Uni-AdaFocus on plain backbones); else None.
        motion: (B, G, h', w') change of the frames in each of h' x w' cells, for policies that read it; see
            `adafocus.policies.heat_map.cell_motion`.
    """

    maps: Tensor
    features: Tensor
    logits: Tensor | None = None
    aux_logits: Tensor | None = None
    steps: Tensor | None = None
    running_max: Tensor | None = None
    motion: Tensor | None = None


@dataclass
class Plan(_Rows):
    """The decisions of the policies: patch locations and frames for the focus network.

    Attributes:
        where: (B, T, 2) patch locations (y, x) as the module docstring defines them, or (B, T, 4) rectangles (y, x,
            height, width); (B, 1, ...) if one location applies to all frames of a video. TokenFocus: (B, n) int64, the
            chosen cells, best first.
        frames: (B, T) int64 index of the frame of each location, in the clip or among the candidates; None if the
            focus network sees a fixed set of frames. TokenFocus: the distinct frames that hold the cells.
        weights: (B, G) weights of the glance frames from the temporal policy (Uni-AdaFocus).
        rectangles: (B, G or 1, 4) output of the spatial policy, with gradient (Uni-AdaFocus).
        state: (B, ...) hidden state of a recurrent policy, from which `decide` continues with later frames (AdaFocus
            V2).
        scores: (B, T or 1, h', w') the heat map that the locations were chosen from, with gradient (AdaFocus V2).
            TokenFocus: (B, n) the scores of the chosen cells, with gradient.
    """

    where: Tensor
    frames: Tensor | None = None
    weights: Tensor | None = None
    rectangles: Tensor | None = None
    state: Tensor | None = None
    scores: Tensor | None = None


@dataclass
class Overrides:
    """Decisions that replace a network's own; for a field that is None the network decides, as in evaluation.

    Attributes:
        where: patch locations that replace the policy's, shaped as `Plan.where`. Uni-AdaFocus takes rectangles for all
            candidates, (B, N, 4), or (B, 1, 4) on TSM. TokenFocus takes cells, (B, n) int64.
        diversity: locations of a second pass through the focus network, which training adds (AdaFocus V2,
            Uni-AdaFocus).
        frames: (B, F) int64 candidates that replace the chosen ones.
        thresholds: (B, F) uniform random numbers for sampling frames by their weights (training). TokenFocus: (B, 2, M)
            for sampling cells by their scores.
        count: number of cells to choose (TokenFocus, training).
        offsets: (B, G) int64 position of each glance frame within its segment of candidates (training).
        motion: whether to put patches where the motion is largest, for an untrained use of policies that read motion.
    """

    where: Tensor | None = None
    diversity: Tensor | None = None
    frames: Tensor | None = None
    thresholds: Tensor | None = None
    offsets: Tensor | None = None
    motion: bool = False
    count: int | None = None


@dataclass
class Output:
    """Predictions for a batch.

    Attributes:
        logits: (B, K), the final prediction.
        steps: (B, T, K), the prediction after each step, in processing order; None if the network has no steps.
        where, frames, weights, rectangles, scores: fields of the `Plan`; `where` is None for whole frames.
        aux_glance: (B, T, K) auxiliary logits of the glance features, in processing order.
        aux_focus: (B, T, K) auxiliary logits of the focus features.
        place_logits: (B, T or P, K) auxiliary logits of the focus features of each of the clip's P patch locations
            alone.
        aux_spatial: (B, K) auxiliary logits whose loss trains the spatial policy (Uni-AdaFocus).
        per_frame: (B, T', K) logits of single frames before they are averaged; T' < T if the network pools over time.
            Uni-AdaFocus: logits of the glance frames, whose loss trains the temporal policy.
        exit_logits: (B, E, K) the prediction at each exit.
        focus_frames: (B, T, H, W, 3) uint8, the frames that `where` refers to, if they are not those of the clip.
        running_max: (B, W) running maximum of the step-by-step classifier after the last step.
        policy_loss: (B,) zeros whose gradient trains the policy (TokenFocus); see `methods.tokens.credit`.
        diversity: in training, the output of the second pass over the same clips, at other patch locations.
    """

    logits: Tensor
    steps: Tensor | None = None
    where: Tensor | None = None
    frames: Tensor | None = None
    weights: Tensor | None = None
    rectangles: Tensor | None = None
    scores: Tensor | None = None
    aux_glance: Tensor | None = None
    aux_focus: Tensor | None = None
    place_logits: Tensor | None = None
    aux_spatial: Tensor | None = None
    per_frame: Tensor | None = None
    exit_logits: Tensor | None = None
    focus_frames: Tensor | None = None
    running_max: Tensor | None = None
    policy_loss: Tensor | None = None
    diversity: Output | None = None
