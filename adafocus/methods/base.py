"""What a method is: the one object that knows what differs between methods.

A method is made from a run's configuration. It says which frames its networks see, makes the network and the stages that
train it, and checks and names the options that it reads. No other part of the package asks for a method's name. The modules
`method.py` import no torch, so that a configuration is checked before torch is loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

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
    evaluate: Any
    seed: int


class Method(ABC):
    """One method with the options of a run.

    Attributes:
        name: as `method=NAME` chooses it.
        stages: the stages that train it, in their order.
        has_glance: whether it has a glance network beside the focus network.
        train_frames, test_frames: rules of `data.sampling` for the frames of a clip, where no protocol names others.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = ("joint",)
    has_glance: ClassVar[bool] = True
    train_frames: ClassVar[str] = "uniform"
    test_frames: ClassVar[str] = "middle"

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

    @abstractmethod
    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Which frames its networks see; `deferred`: frames are read when they are looked at, as early exit needs it."""

    @abstractmethod
    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """The network on these backbones, which have their temporal modules already."""

    @abstractmethod
    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """What learns in the configured stage, for a network of this method."""
