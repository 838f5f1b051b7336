"""`Method`, the base class of the methods: everything that differs between methods is behind this interface.

A method is made from a run's configuration. It defines which frames its networks see and builds the network and the
stages that train it. The `method.py` modules do not import torch, so a configuration can be checked before torch is
loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from adafocus.core.errors import UserError
from adafocus.core.frames import FramePlan
from adafocus.methods.options import GLANCE, RULES, ClassifierWidth, Options, PolicyWidth

if TYPE_CHECKING:
    from torch import nn

    from adafocus.backbones import Backbone
    from adafocus.core.stage import Normalize, Stage
    from adafocus.methods.network import Network


class Sections(Protocol):
    """The sections of a configuration that methods read; `adafocus.config.schema` defines their keys."""

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
    init: Any
    seed: int


class Widths(NamedTuple):
    """Default hidden widths of the policy and of the classifier over both networks; None: there is no such part."""

    policy: int | None = None
    classifier: int | None = None


AnyOptions = TypeVar("AnyOptions", bound=Options)


class Method(ABC):
    """A method together with the configuration of a run.

    Attributes:
        name: the name that `method=NAME` takes.
        stages: names of the stages that train it, in their order.
        has_glance: whether it has a glance network in addition to the focus network.
        train_frames, test_frames: rules of `data.sampling` that choose the frames of a clip, unless the protocol sets
            others.
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
        """Whether its backbones have the temporal shift (TSM); most methods use another network then."""
        return self.config.backbone.shift != "none"

    @property
    def exits_early(self) -> bool:
        """Whether its network predicts step by step, so that early exit is possible."""
        return False

    @property
    def whole_glance_before(self) -> bool:
        """Whether version 0.1 ignored `backbone.glance_size` for this method and used frames of full size."""
        return False

    @property
    def any_number_of_frames(self) -> bool:
        """Whether a trained network can be tested with another number of frames than it was built for."""
        return False

    @property
    def widths(self) -> Widths:
        """Values of `backbone.policy_hidden` and `backbone.classifier_width` if they are not set."""
        return Widths()

    @property
    def options(self) -> frozenset[type[Options]]:
        """The classes of method-specific options that this method reads; setting any others is an error."""
        policy, classifier = self.widths
        found = GLANCE if self.has_glance else frozenset[type[Options]]()
        found |= {PolicyWidth} if policy is not None else set()
        return found | ({ClassifierWidth} if classifier is not None else set())

    def read(self, options: type[AnyOptions]) -> AnyOptions:
        """Returns an instance of a class of options with the configured values."""
        section = attrgetter(options.section)(self.config)
        values = section if isinstance(section, dict) else vars(section)
        names = [option.name for option in fields(options)]
        return options(**{name: values[name] for name in names if name in values})

    def values(self, *options: type[Options]) -> dict[str, Any]:
        """Returns the configured values of several classes of options by name, as arguments of a network or stage."""
        return {name: value for part in options for name, value in vars(self.read(part)).items()}

    @property
    def learns_from_labels(self) -> bool:
        """Whether the configured stages have a loss with labels, to which the options of `core.objective` apply."""
        return True

    @property
    def trains_backbones(self) -> bool:
        """Whether the configured stages train a backbone."""
        return True

    @property
    def needed_lr_parts(self) -> tuple[str, ...]:
        """Parts that `schedule.lr_mults` must name."""
        return ()

    @property
    def not_needed(self) -> tuple[str, ...]:
        """Prefixes of state-dict keys that evaluation of the configured stage does not need in a checkpoint."""
        return ()

    def check(self) -> None:
        """Checks options that depend on each other; the type of each key checks its own value.

        Raises:
            UserError: they do not fit together.
        """
        if not self.has_glance:
            return
        frame, patch, backbone = self.config.dataset.frame_size, self.config.patch.size, self.config.backbone
        if patch > frame:
            raise UserError(
                f"patch.size={patch} is larger than dataset.frame_size={frame}; choose a smaller patch or larger frames"
            )
        if backbone.adaptive or backbone.non_local or backbone.temporal_pool:
            raise UserError(
                f"method={self.name} supports no temporal module of the backbone but backbone.shift; choose another "
                f"backbone, or method=recognizer for this one"
            )

    def check_where(self) -> None:
        """For methods without the rules that choose patch locations by motion or by the truth.

        Raises:
            UserError: such a rule is set.
        """
        where = self.config.method.where
        if where in RULES:
            raise UserError(f"method.where={where} needs method=adafocus_v2; choose learned, random or center")

    def check_same_frames(self) -> None:
        """Checks, for methods whose networks see the same frames on plain backbones, that none sets other focus frames.

        Raises:
            UserError: `segments.focus` differs from `segments.glance`.
        """
        glance, focus = self.config.segments.glance, self.config.segments.focus
        if not self.on_tsm and focus not in (None, glance):
            raise UserError(
                f"method={self.name} on plain backbones focuses on the frames it glances at: segments.focus={focus} "
                f"must be {glance} (or segments={glance})"
            )

    def check_candidates(self, candidates: int) -> None:
        """Checks, for methods whose glance frames are some of the candidates, that they can be equally spaced.

        Raises:
            UserError: the number of candidates is not a multiple of that of glance frames.
        """
        glance = self.config.segments.glance
        if candidates % glance:
            raise UserError(
                f"segments.pool={candidates} must be a multiple of segments.glance={glance}: the glance frames are "
                f"taken from the candidates at equal distances"
            )

    def check_start(self) -> None:  # noqa: B027 - most methods need no weights
        """Checks, if `init.from` is not set, that training needs no weights or that other keys name them.

        Raises:
            UserError: no key names the weights that training starts from.
        """

    @abstractmethod
    def frame_plan(self, *, deferred: bool = False) -> FramePlan:
        """Returns how many frames its networks see; `deferred`: frames are decoded when needed, as in early exit."""

    def network(self, glance: Backbone | None, focus: Backbone, num_classes: int) -> Network:
        """Builds the network from its backbones, which already contain their temporal modules."""
        return self.network_class()(glance, focus, num_classes=num_classes, **self.arguments())

    def network_class(self) -> Callable[..., Network]:
        """Returns the class of the network, imported by this method, because the class needs torch."""
        raise NotImplementedError(f"{type(self).__name__} has neither network nor network_class")

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of `network_class` except for the backbones and the number of classes."""
        return {"patch_size": self.config.patch.size, "frame_size": self.config.dataset.frame_size}

    def stage_arguments(self, network: nn.Module) -> dict[str, Any]:
        """Arguments of stages that train all parts together."""
        from adafocus.core.stage import batch_norms

        schedule = self.config.schedule
        frozen = batch_norms(network) if schedule.freeze_norm else []
        return {"seed": self.config.seed, "rates": schedule.lr_mults, "frozen_norm": frozen}

    @abstractmethod
    def stage(self, network: nn.Module, normalize: Normalize) -> Stage:
        """Makes the training stage that the configuration selects, for a network of this method."""
