"""`Method`, the base class of the objects that hold everything that differs between methods.

A method is made from a run's configuration. It defines which frames its networks see and builds the network and the
stages that train it. The `method.py` modules do not import torch, so a configuration can be checked before torch is
loaded.
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
    """A method together with the configuration of a run.

    Attributes:
        name: the name that `method=NAME` takes.
        stages: names of the stages that train it, in their order.
        has_glance: whether it has a glance network in addition to the focus network.
        train_frames, test_frames: rules of `data.sampling` that choose the frames of a clip, unless the protocol sets
            others.
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
        """Whether its backbones have the temporal shift (TSM); most methods use another network then."""
        return self.config.backbone.shift != "none"

    @property
    def exits_early(self) -> bool:
        """Whether its network predicts step by step, so that early exit is possible."""
        return False

    @abstractmethod
    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """How many frames its networks see; `deferred`: frames are decoded only when needed, as in early exit."""

    @abstractmethod
    def network(self, glance: nn.Module | None, focus: nn.Module, num_classes: int) -> nn.Module:
        """Builds the network from its backbones, which already contain their temporal modules."""

    @abstractmethod
    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """The training stage that the configuration selects, for a network of this method."""
