"""What all networks that glance and focus share: the paper's three verbs, and the way to leave early."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from adafocus.core.output import GlanceOutput, Output, Overrides, Plan
from adafocus.layers.crop import boxes

Prepare = Callable[[Tensor], Tensor]
#: (rows (B',), candidates (B', n)) -> normalized frames (B', n, 3, S, S); rows count in the batch that the walk began with.
Reader = Callable[[Tensor, Tensor], Tensor]
Walk = Generator[Tensor, Tensor, None]


def as_they_are(frames: Tensor) -> Tensor:
    """Frames that are normalized already."""
    return frames


class AdaptiveNetwork(nn.Module, ABC):
    """A network that glances at a clip, decides where and when to look, and focuses there.

    `forward` is these three in a row, and everything else is written on top of them: control rows give `decide` a plan of
    their own, exported programs are one verb each, early exit repeats the verbs on a few frames at a time.

    Attributes:
        glance_net, focus_net: the backbones.
        patch_size, frame_size: in pixels; frames are square.
        num_places: places (patches or rectangles) of a video that a plan from outside has to give.
        parts: names of parts -> submodules, for the count of multiply-adds; see `engine.cost`.
        glance_fields, decide_fields, focus_fields: which fields of `GlanceOutput` an exported program of each verb returns
            or reads.
        step_classifiers: submodules that join both networks and answer after every step; none where the heads of the two
            networks are all there is.
        chooses_frames: whether a plan says which frames are focused on.
        shares_frames: whether both networks see the same frames.
        first_candidate: where in a clip the candidates begin that frames are chosen from.
    """

    parts: ClassVar[dict[str, tuple[str, ...]]]
    glance_fields: ClassVar[tuple[str, ...]] = ("maps", "features")
    decide_fields: ClassVar[tuple[str, ...]] = ("maps",)
    focus_fields: ClassVar[tuple[str, ...]] = ("features",)
    step_classifiers: ClassVar[tuple[str, ...]] = ()
    chooses_frames: ClassVar[bool] = False
    shares_frames: ClassVar[bool] = False
    first_candidate: int = 0

    def __init__(self, glance_net: nn.Module, focus_net: nn.Module, *, patch_size: int, frame_size: int) -> None:
        super().__init__()
        if patch_size > frame_size:
            raise ValueError(f"a patch of {patch_size} pixels does not fit into frames of {frame_size}")
        self.glance_net, self.focus_net = glance_net, focus_net
        self.patch_size, self.frame_size = patch_size, frame_size

    num_places: int

    @property
    @abstractmethod
    def frame_sets(self) -> dict[str, int]:
        """Names and sizes of the sets of frames that the exported programs read, the glance network's first."""

    @abstractmethod
    def glance(self, frames: Tensor, auxiliary: bool = False) -> GlanceOutput:
        """The glance network's view of its frames (B, G, 3, S, S); `auxiliary`: with logits that only training needs."""

    @abstractmethod
    def decide(self, glance: GlanceOutput, overrides: Overrides | None = None) -> Plan:
        """Where, and of some networks when, to look; policies send no gradient into the glance network through maps."""

    @abstractmethod
    def focus(self, frames: Tensor, plan: Plan, glance: GlanceOutput, auxiliary: bool = False) -> Output:
        """The prediction from the focus network's frames (B, F, 3, S, S) at the planned places, and from the glance."""

    def glance_frames(self, frames: Tensor, overrides: Overrides) -> Tensor:
        """The frames of a clip (B, T, ...) that the glance network sees."""
        return frames

    def focus_frames(self, frames: Tensor, plan: Plan | None = None) -> Tensor:
        """The frames of a clip (B, T, ...) that the focus network sees; networks that choose frames need the plan."""
        return frames

    def focus_twice(
        self, frames: Tensor, plan: Plan, diversity: Tensor, glance: GlanceOutput, auxiliary: bool
    ) -> tuple[Output, Output]:
        """Outputs at the planned places and at those of `diversity`, each with batch statistics of its own."""
        output = self.focus(frames, plan, glance, auxiliary)
        return output, self.focus(frames, replace(plan, where=diversity), glance, auxiliary)

    def forward(
        self,
        frames: Tensor,
        overrides: Overrides | None = None,
        auxiliary: bool = True,
        prepare: Prepare = as_they_are,
    ) -> Output:
        """A whole clip, as training needs it.

        Args:
            frames: (B, T, 3, S, S) normalized frames in temporal order, all that the networks may see; with `prepare`
                anything of (B, T, ...).
            overrides: what is not left to the policies.
            auxiliary: whether the logits that only training needs are wanted.
            prepare: makes selected frames (B, n, ...) into normalized ones (B, n, 3, S, S), so that frames which no network
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
        """Adds logits that belong to the whole pass and that only training needs: none by default."""

    def native_places(self, corners: Tensor) -> Tensor:
        """(B, T, 2) corners to places of the patch's own size, as `Plan.where` has them."""
        return corners

    def glance_answer(self, output: Output) -> Tensor:
        """(B, K): what the glance network alone answers, from the output of a whole pass with auxiliary logits."""
        return output.aux_glance.mean(1)

    def boxes(self, where: Tensor) -> Tensor:
        """(..., 2) corners to (..., 4): top, left, height and width of the patches in pixels of the frame."""
        return boxes(where, self.frame_size, smallest=self.patch_size)

    @property
    def crop_values(self) -> int:
        """Values that are blended to cut the patches of a video out of its frames."""
        return list(self.frame_sets.values())[-1] * 3 * self.patch_size**2


class EarlyExitNetwork(AdaptiveNetwork):
    """A network that answers step by step, so that a clip may leave as soon as it is sure.

    Attributes:
        num_exits: number of exits E.
        budgets, first_power: wanted shares of clips at each exit, q ** (first_power + exit) for every budget q, as the
            released program has them; see `engine.exits.wanted_shares`.
        glance_exit: whether exit 0 comes after the glance alone.
    """

    num_exits: int
    budgets: ClassVar[Sequence[float]]
    first_power: ClassVar[int] = 0
    glance_exit: ClassVar[bool] = False

    @abstractmethod
    def first_frames(self, frames: Tensor) -> Tensor:
        """The frames of a whole clip (B, T, ...) that are looked at in any case."""

    @abstractmethod
    def exit_costs(self, parts: dict[str, int]) -> list[int]:
        """Multiply-adds of a video that leaves at each exit, from those of the network's parts."""

    @abstractmethod
    def walk(self, frames: Tensor, read: Reader, chunk: int = 1) -> Walk:
        """Runs a batch exit by exit.

        A generator: it yields the logits (B', K) of the clips that are still there, and is sent a mask (B',) of those
        that stay. What belongs to the others is dropped: later frames of theirs are neither read nor processed. Its
        answers are those of `forward`, whose `Output.exit_logits` holds them side by side.

        Args:
            frames: (B, n, 3, S, S), those that are looked at in any case.
            read: gives others when they are wanted.
            chunk: with more than 1, clips may leave at the first exit and after each `chunk` steps; see `passed_exits`.
        """


def passed_exits(num_exits: int, chunk: int, *, glance_exit: bool) -> list[int]:
    """Exits that a walk in chunks passes: of a network with an exit after the glance, exit 0 and then each `chunk`-th; else
    each `chunk`-th. The last is always among them."""
    start = 1 if glance_exit else 0
    ends = list(range(start + chunk - 1, num_exits, chunk))
    if not ends or ends[-1] != num_exits - 1:
        ends.append(num_exits - 1)
    return [0, *ends] if glance_exit else ends
