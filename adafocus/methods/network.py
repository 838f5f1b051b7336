"""Base classes of networks that glance, decide and focus: `AdaptiveNetwork`, and `EarlyExitNetwork` for early exit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from adafocus.backbones import Backbone
from adafocus.backbones.temporal import mixes_frames
from adafocus.core.cost import Cost, Part
from adafocus.core.output import GlanceOutput, Output, Overrides, Plan, given
from adafocus.layers.crop import boxes
from adafocus.layers.resize import resized
from adafocus.methods.options import GLANCE_RESIZES
from adafocus.methods.programs import Program, three_programs

Prepare = Callable[[Tensor], Tensor]
#: What a network remembers of B clips between two exits. The batch is the first dimension of every tensor, so that
#: clips can be taken out and those of several batches can be joined.
State = dict[str, Tensor]


class Reader(Protocol):
    """Reads frames of the clips of a step on demand."""

    def __call__(self, candidates: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns normalized frames (B', n, 3, S, S), candidates (B', n) of the clips `rows` (B',); None: of all."""


def as_they_are(frames: Tensor) -> Tensor:
    """Returns the frames unchanged; the `prepare` argument for frames that are normalized already."""
    return frames


class Network(nn.Module):
    """Base class of the networks of all methods: frames (B, T, 3, S, S) -> `Output`.

    Attributes:
        parts: the parts whose multiply-adds are counted; see `evaluation.cost`.
    """

    parts: ClassVar[tuple[Part, ...]]

    def programs(self) -> list[Program]:
        """Returns the modules that `adafocus export` writes, in the order in which they run."""
        raise ValueError(f"a {type(self).__name__} cannot be exported")

    def why_no_stream(self) -> str | None:
        """Returns the reason why it cannot run frame by frame, and what to train instead; None if it can."""
        return (
            f"a {type(self).__name__} chooses from whole clips and cannot run frame by frame; "
            f"train method=recognizer with backbone.shift=online for streams"
        )


class AdaptiveNetwork(Network, ABC):
    """A network that glances at a clip, decides on patch locations (and frames), and focuses on the patches.

    Args:
        glance, focus: backbones (see `adafocus.backbones`).
        patch_size, frame_size: sides of the square patches and frames in pixels.
        glance_size: side of the frames that the glance network sees; None: frame_size.
        glance_resize: how they are resized, see `layers.resize.resized`.

    `forward` calls `glance`, `decide` and `focus` one after the other. Controls pass their own decisions to `decide`,
    an exported program is one of the three, and early exit calls them on a few frames at a time. Letters of shapes are
    those of docs/glossary.md, "Letters of tensor shapes".

    Attributes:
        glance_net, focus_net: the backbones.
        num_places: number of patch locations or rectangles per video that `Overrides.where` must give.
        place_per_frame: whether each of them belongs to one frame; False: all of them apply to all frames.
        glance_fields, decide_fields, focus_fields: the fields of `GlanceOutput` that the exported programs return
            (glance) or read (decide, focus).
        step_classifiers: submodules that join the features of both networks and predict after every step; empty if the
            prediction is the sum of two heads.
        chooses_frames: whether `decide` also chooses the frames for the focus network.
        chooses_cells: whether `decide` chooses cells of a grid, any number of them in a frame; `Output.where` and
            `Output.frames` then have the location and the frame of each, and `mean_place` replaces their mean location.
        shares_frames: whether both networks see the same frames.
        first_candidate: index of the first candidate frame in a clip.
        answers_at_glance: whether `glance_answer` is trained, and computed from any glance output.
    """

    glance_fields: tuple[str, ...] = ("maps", "features")
    decide_fields: tuple[str, ...] = ("maps",)
    focus_fields: ClassVar[tuple[str, ...]] = ("features",)
    step_classifiers: ClassVar[tuple[str, ...]] = ()
    chooses_frames: ClassVar[bool] = False
    chooses_cells: ClassVar[bool] = False
    shares_frames: ClassVar[bool] = False
    place_per_frame: ClassVar[bool] = True
    first_candidate: int = 0
    answers_at_glance: ClassVar[bool] = False

    def __init__(
        self,
        glance: Backbone,
        focus: Backbone,
        *,
        patch_size: int,
        frame_size: int = 224,
        glance_size: int | None = None,
        glance_resize: str = "aligned",
    ) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        if glance_resize not in GLANCE_RESIZES:
            raise ValueError(f"glance_resize must be one of {GLANCE_RESIZES}")
        self.glance_net, self.focus_net = glance, focus
        self.patch_size, self.frame_size = patch_size, frame_size
        self.glance_size, self.glance_resize = glance_size or frame_size, glance_resize

    num_places: int

    @property
    @abstractmethod
    def frame_sets(self) -> dict[str, int]:
        """Names and sizes of the sets of frames that the exported programs read, the glance network's first."""

    @abstractmethod
    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Runs the glance network on its frames (B, G, 3, S, S); `auxiliary` adds logits that only training needs."""

    @abstractmethod
    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Chooses patch locations, and frames if `chooses_frames`; no gradient flows from here into the glance maps."""

    @abstractmethod
    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """Runs the focus network on patches of its frames (B, F, 3, S, S) and combines the result with the glance."""

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """Selects the frames (B, G, ...) that the glance network sees from those of a clip (B, T, ...)."""
        return frames

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """Selects the frames (B, F, ...) that the focus network sees; networks that choose frames need `plan`."""
        return frames

    def first_frames(self, frames: Tensor) -> Tensor:
        """Selects the frames (B, n, ...) of a whole clip that are seen before frames are chosen or the first exit."""
        raise NotImplementedError

    def even_frames(self, like: Tensor) -> Tensor:
        """Returns evenly spaced candidates (B, F), a control for chosen frames; B is taken from `like` (B, ...)."""
        raise NotImplementedError

    def glance_maps(self, frames: Tensor) -> Tensor:
        """Resizes frames (B, T, 3, S, S) and computes the glance network's feature maps (B, T, D, h, w)."""
        seen = resized(frames.flatten(0, 1), self.glance_size, self.glance_resize)
        return self.glance_net(seen).unflatten(0, frames.shape[:2])

    def glance_of(self, maps: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """Returns what `glance` does, from the `glance_maps` of its frames; see `shares_maps`."""
        raise NotImplementedError

    @property
    def shares_maps(self) -> bool:
        """Whether overlapping windows of a video can share the glance maps of their frames.

        They can if `glance_of` needs nothing but the maps, and no temporal module makes the map of a frame depend on
        the other frames of its window.
        """
        return type(self).glance_of is not AdaptiveNetwork.glance_of and not mixes_frames(self.glance_net)

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """Focuses at the plan's locations and at those in `diversity`; BatchNorm sees two passes."""
        output = self.focus(frames, plan, glance, auxiliary)
        return output, self.focus(frames, replace(plan, where=diversity), glance, auxiliary)

    def forward(
        self,
        frames: Tensor,
        overrides: Overrides | None = None,
        auxiliary: bool = True,
        prepare: Prepare = as_they_are,
    ) -> Output:
        """Glances, decides and focuses on a whole clip, as in training.

        Args:
            frames: (B, T, 3, S, S) normalized frames in temporal order, all that the networks may see. With `prepare`,
                frames of any shape (B, T, ...) that it accepts.
            overrides: decisions that replace those of the policies.
            auxiliary: whether to compute the logits that only training needs.
            prepare: converts selected frames (B, n, ...) to normalized ones (B, n, 3, S, S); frames that no network
                sees are never converted.
        """
        overrides = overrides or Overrides()
        seen = prepare(self.glance_frames(frames, overrides))
        glance = self.glance(seen, auxiliary)
        plan = self.decide(glance, overrides)
        chosen = seen if self.shares_frames else prepare(self.focus_frames(frames, plan))
        if overrides.diversity is None:
            output = self.focus(chosen, plan, glance, auxiliary)
        else:
            output, output.diversity = self.focus_twice(chosen, plan, overrides.diversity, glance, auxiliary)
        if auxiliary:
            self.add_training_logits(output, plan, glance)
        return output

    def add_training_logits(self, output: Output, plan: Plan, glance: GlanceOutput) -> None:
        """Adds logits to `output` that only training needs and that depend on `plan` and `glance`; none by default."""

    def native_places(self, corners: Tensor) -> Tensor:
        """Converts corners (B, T, 2) to the format of `Plan.where`: the same, or rectangles of the patch's size."""
        return corners

    def glance_answer(self, glance: GlanceOutput) -> Tensor:
        """Returns the glance network's own prediction (B, K), from a glance output that has auxiliary logits.

        Networks with `answers_at_glance` need none: they compute them if they are absent.
        """
        return given(glance.aux_logits).mean(1)

    def glance_cost(self, cost: Cost) -> int:
        """Returns the multiply-adds per video of the glance network and of `glance_answer`."""
        return cost.of("glance") + cost.of("glance", auxiliary=True)

    def boxes(self, where: Tensor) -> Tensor:
        """Converts patch locations (..., 2) to top, left, height and width (..., 4) in pixels of the frame."""
        return boxes(where, self.frame_size, smallest=self.patch_size)

    def programs(self) -> list[Program]:
        """See `Network.programs`: one program each for `glance`, `decide` and `focus`."""
        return three_programs(self)

    @property
    def crop_values(self) -> int:
        """Number of pixel values that bilinear cropping of a video's patches computes; its cost is counted from it."""
        return list(self.frame_sets.values())[-1] * 3 * self.patch_size**2


class EarlyExitNetwork(AdaptiveNetwork):
    """A network that predicts step by step, so that a clip can exit once its prediction is confident enough.

    Attributes:
        num_exits: number of exits E.
        budgets, first_power: each budget q asks that a share of clips proportional to q ** (first_power + k) exits at
            exit k; these are the default values of q from the papers' repositories. See
            `evaluation.exits.wanted_shares`.
        glance_exit: whether exit 0 comes after the glance, before any patch.
    """

    num_exits: int
    budgets: ClassVar[Sequence[float]]
    first_power: ClassVar[int] = 0
    glance_exit: ClassVar[bool] = False

    @abstractmethod
    def exit_costs(self, cost: Cost) -> list[int]:
        """Returns the multiply-adds of a video that stops at each exit, from the cost of the whole network."""

    @abstractmethod
    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """Runs the clips that have not exited to the next exit; other frames are neither decoded nor processed.

        Args:
            number: 0 for the first exit that is used, 1 for the next; see `passed_exits`.
            state: what the step before returned, for any clips in any order; at first {"frames": `first_frames`,
                normalized}.
            read: reads further frames of these clips on demand.
            chunk: steps between two exits; with more than 1 some exits are skipped.

        Returns:
            the logits (B', K) of the exit, as `forward` returns them in `Output.exit_logits`, and the next state. Its
            entries "where" and "looked" are the patch locations so far and the frames that they belong to, as
            `Plan.where` and `Plan.frames`; either may be missing.
        """


class GlanceExit(EarlyExitNetwork):
    """A network with two exits: after the glance, and at the end.

    Both of its networks have temporal modules, which mix the frames, so that neither predicts before it has seen all of
    its frames. The released program of Uni-AdaFocus on TSM exits like this, with these budgets; those of AdaFocus V1
    and V2 on TSM do not exit early.
    """

    num_exits = 2
    glance_exit = True
    budgets = tuple(number / 100 for number in (*range(1, 400), 4e3, 4e4, 4e5, 4e6))

    def first_logits(self, glance: GlanceOutput) -> Tensor:
        """Returns the prediction (B, K) of the exit after the glance, from an output with auxiliary logits."""
        return given(glance.aux_logits).mean(1)

    def first_frames(self, frames: Tensor) -> Tensor:
        """See `EarlyExitNetwork.first_frames`; these are the glance frames."""
        return self.glance_frames(frames, Overrides())

    def exit_costs(self, cost: Cost) -> list[int]:
        """See `EarlyExitNetwork.exit_costs`; both heads of the glance network, if there are two, run at either exit."""
        head = sum(count for part, count in cost.parts.items() if part.name == "glance" and part.auxiliary)
        return [cost.of("glance") + 2 * head, cost.total + head]

    def step(self, number: int, state: State, read: Reader, chunk: int = 1) -> tuple[Tensor, State]:
        """See `EarlyExitNetwork.step`; all focus frames are processed in one step."""
        if not number:
            glance = self.glance(state["frames"], auxiliary=True)
            return self.first_logits(glance), present(replace(glance, aux_logits=None))
        glance = GlanceOutput(**state)
        plan = self.decide(glance)
        count = list(self.frame_sets.values())[-1]
        chosen = plan.frames
        if chosen is None:
            chosen = torch.arange(count, device=plan.where.device).expand(len(plan.where), -1)
        output = self.focus(read(chosen), plan, glance)
        return output.logits, {"where": plan.where, "looked": chosen}


def frames_of_step(state: State, wanted: Tensor, read: Reader) -> Tensor:
    """Returns the frames (B', n, 3, S, S) of a step; the first step has one of them in its state.

    Args:
        state, read: see `EarlyExitNetwork.step`.
        wanted: (n,) the candidates that the step processes.
    """
    there = state.get("frames")
    count = next(iter(state.values())).shape[0]
    if there is None:
        return read(wanted.expand(count, -1))
    return there if len(wanted) == 1 else torch.cat([there, read(wanted[1:].expand(count, -1))], 1)


def present(record: Any) -> State:
    """Returns the tensors of a record, whose first dimension is the batch, by name."""
    return {name: value for name, value in vars(record).items() if value is not None}


def passed_exits(num_exits: int, chunk: int, *, glance_exit: bool) -> list[int]:
    """Returns the indices of the exits in use when `chunk` steps are computed at a time.

    These are every `chunk`-th exit and the last. With `glance_exit`, exit 0 is used as well and chunks are counted from
    exit 1.
    """
    start = 1 if glance_exit else 0
    ends = list(range(start + chunk - 1, num_exits, chunk))
    if not ends or ends[-1] != num_exits - 1:
        ends.append(num_exits - 1)
    return [0, *ends] if glance_exit else ends
