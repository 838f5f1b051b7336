"""What a method is: the one object that knows what differs between methods.

A method is made from a run's configuration. It says which frames its networks see, makes the network and the stages that
train it, and checks and names the options that it reads. No other part of the package asks for a method's name. The modules
`method.py` import no torch, so that a configuration is checked before torch is loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan

if TYPE_CHECKING:
    from torch import nn

    from adafocus.core.stage import Normalize, Stage


class Sections(Protocol):
    """The sections of a configuration that methods read; see `adafocus.config.schema`."""

    method: Any
    backbone: Any
    patch: Any
    segments: Any
    policy: Any
    stage: Any
    schedule: Any
    dataset: Any
    protocol: Any
    evaluate: Any
    seed: int


class Widths(NamedTuple):
    """Widths of the policy and of the classifier over both networks where none is set; None: there is no such part."""

    policy: int | None = None
    classifier: int | None = None


#: Keys that every method with a glance network reads.
_GLANCE_KEYS = frozenset(
    (
        "patch",
        "segments.focus",
        "backbone.glance",
        "backbone.glance_weights",
        "backbone.glance_channels",
        "backbone.glance_strides",
        "evaluate.controls",
        "schedule.lr_mults",
    )
)


class Method(ABC):
    """One method with the options of a run.

    Attributes:
        name: as `method=NAME` chooses it.
        stages: the stages that train it, in their order.
        has_glance: whether it has a glance network beside the focus network.
        train_frames, test_frames: rules of `data.sampling` for the frames of a clip, where no protocol names others.
        lr_parts: parts of the network that `schedule.lr_mults` may name.
        reads_flow: whether it can work on optical flow.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = ("joint",)
    has_glance: ClassVar[bool] = True
    train_frames: ClassVar[str] = "uniform"
    test_frames: ClassVar[str] = "middle"
    lr_parts: ClassVar[tuple[str, ...]] = ("glance", "focus", "classifier", "policy")
    reads_flow: ClassVar[bool] = False

    def __init__(self, config: Sections) -> None:
        self.config = config

    @property
    def on_tsm(self) -> bool:
        """Whether its backbones join frames by the temporal shift, which is the other form of most methods."""
        return self.config.backbone.shift != "none"

    @property
    def exits_early(self) -> bool:
        """Whether its network answers step by step, so that clips may leave early."""
        return False

    @property
    def any_number_of_frames(self) -> bool:
        """Whether a trained network can be tested with another number of frames than it was built for."""
        return False

    @property
    def widths(self) -> Widths:
        """What `backbone.policy_hidden` and `backbone.classifier_width` are where they are not set."""
        return Widths()

    @property
    def reads(self) -> frozenset[str]:
        """Of the keys that not every method reads (those of `config.effects.READERS` without a rule), those that this one reads; whole groups by
        their name. Typed keys that nothing reads are refused."""
        widths = {"backbone.policy_hidden": self.widths.policy, "backbone.classifier_width": self.widths.classifier}
        own = frozenset(key for key, width in widths.items() if width is not None)
        return own | _GLANCE_KEYS if self.has_glance else own

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """Parts that `schedule.lr_mults` must name."""
        return ()

    @property
    def not_needed(self) -> tuple[str, ...]:
        """Parts of the network, as prefixes of keys of its state, that evaluation of the configured stage does not use: a
        checkpoint may lack them."""
        return ()

    def check(self) -> None:
        """What can be wrong with its options taken together; those of one key are checked by their types.

        Raises:
            UserError: one line with the key and what to do.
        """
        if not self.has_glance:
            return
        frame, patch, backbone = self.config.dataset.frame_size, self.config.patch.size, self.config.backbone
        if patch > frame:
            raise UserError(
                f"patch.size={patch} is larger than the frame of {frame} pixels; "
                f"choose a smaller patch or raise dataset.frame_size"
            )
        if backbone.adaptive or backbone.non_local or backbone.temporal_pool:
            raise UserError(
                f"method={self.name} knows the temporal shift only: choose another backbone, or method=recognizer for this one"
            )

    def check_same_frames(self) -> None:
        """For methods whose networks see the same frames on plain backbones.

        Raises:
            UserError: another number of focus frames is set.
        """
        glance, focus = self.config.segments.glance, self.config.segments.focus
        if not self.on_tsm and focus not in (None, glance):
            raise UserError(
                f"method={self.name} on plain backbones focuses on the frames it glances at: segments.focus={focus} "
                f"must be {glance} (or segments={glance})"
            )

    @abstractmethod
    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Which frames its networks see; `deferred`: frames are read when they are looked at, as early exit needs it."""

    @abstractmethod
    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """The network on these backbones, which have their temporal modules already."""

    @abstractmethod
    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """What learns in the configured stage, for a network of this method."""
