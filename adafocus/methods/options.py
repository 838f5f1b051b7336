"""`Options`, the base class of configuration keys that only some methods read, and the ones that several methods share.

The keys of a single method are in `options.py` of its folder. `adafocus.config.schema` puts the sections of the
configuration together from all of them. The keys of a plug-in's method are in the section `method.options`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from omegaconf import MISSING

from adafocus.core.domains import AtLeast, Between, Count, OneOf, Share, Weight, Words

WHERE = ("learned", "random", "center", "motion", "oracle")
#: Those that only method=adafocus_v2 has.
RULES = ("motion", "oracle")
GLANCE_RESIZES = ("aligned", "area")
CONSENSUSES = ("average", "change")


@dataclass
class Options:
    """Base class of dataclasses whose fields are configuration keys; `Method.options` lists the classes a method reads.

    Attributes:
        section: the section of the configuration that has these keys.
        needs: which methods read them, in words, for the message about a key that has no effect.
        whole: whether the section has no other keys; then choosing its YAML group also needs such a method.
    """

    section: ClassVar[str] = "method.options"
    needs: ClassVar[str] = "a method of a plug-in"
    whole: ClassVar[bool] = False

    def __init_subclass__(cls, section: str = "", needs: str = "", whole: bool = False) -> None:
        if section:
            cls.section, cls.needs, cls.whole = section, needs, whole

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Returns the full names of the keys, `section.field`, after the section's name if `whole` is set."""
        names = tuple(f"{cls.section}.{option.name}" for option in fields(cls))
        return (cls.section, *names) if cls.whole else names


_PATCHES = "a method that chooses patches (adafocus_v1, adafocus_v2, uni_adafocus)"
_GLANCE = "a method with a glance network (adafocus_v1, adafocus_v2, uni_adafocus, tokens)"
_CLASSIFIER = "a method with a classifier over both networks"


@dataclass
class Patch(Options, section="patch", needs=_PATCHES, whole=True):
    size: Annotated[int, Between(1, 4096)] = MISSING  # side of the square patches in pixels


@dataclass
class FocusFrames(Options, section="segments", needs=_PATCHES):
    # Number of frames that the focus network sees; None: as many as `glance` on plain backbones, 3/2 as many on TSM.
    focus: Annotated[int, Between(1, 4096)] | None = None


@dataclass
class Candidates(Options, section="segments", needs="method=uni_adafocus or tokens"):
    # Number of candidate frames that focus frames or tokens are chosen from; None: three for each focus frame
    # (uni_adafocus), the glance frames (tokens).
    pool: Annotated[int, Between(1, 4096)] | None = None


@dataclass
class GlanceNetwork(Options, section="backbone", needs=_GLANCE):
    glance: Words = MISSING
    glance_options: dict[str, Any] = field(default_factory=dict)  # arguments of a library's or plug-in's factory
    glance_weights: Words | None = None  # initial weights of the glance network; None: the same as `weights`
    glance_channels: list[Count] = field(default_factory=list)  # channels per layer of a tiny glance network
    # Strides of a tiny glance network; empty: 2 in every layer.
    glance_strides: list[Count] = field(default_factory=list)


@dataclass
class Controls(Options, section="evaluate", needs=_GLANCE):
    controls: bool = True  # whether to evaluate the control variants (random and centered patches, glance alone) too


@dataclass
class LrMults(Options, section="schedule", needs=_GLANCE):
    lr_mults: dict[str, Weight] = field(default_factory=dict)  # part of the network -> learning-rate multiplier


@dataclass
class GlanceSize(Options, section="backbone", needs="a method with a policy (adafocus_v1 on plain backbones only)"):
    # Side in pixels of the frames that the glance network sees; None: dataset.frame_size.
    glance_size: Annotated[int, Between(1, 4096)] | None = None


@dataclass
class GlanceResize(Options, section="backbone", needs="method=adafocus_v2, uni_adafocus or tokens"):
    # How frames are resized for the glance network: aligned (bilinear, aligned corners) or area (antialiased).
    glance_resize: Annotated[str, OneOf(GLANCE_RESIZES)] = "aligned"


@dataclass
class PolicyWidth(Options, section="backbone", needs="method=adafocus_v1, adafocus_v2 or tokens"):
    policy_hidden: Annotated[int, AtLeast(8)] | None = None  # hidden width of the policy; None: the method's default


@dataclass
class ClassifierWidth(Options, section="backbone", needs=f"{_CLASSIFIER}, on plain backbones"):
    classifier_width: Count | None = None  # hidden width of the classifier; None: the method's default


@dataclass
class Where(Options, section="method", needs="method=adafocus_v2, uni_adafocus or tokens"):
    # How patch locations are chosen; method=adafocus_v2 also has motion, the place of largest motion, and oracle, the
    # true place in synthetic videos.
    where: Annotated[str, OneOf(WHERE)] = "learned"


@dataclass
class Background(Options, section="method", needs="method=recognizer, or uni_adafocus with the temporal shift"):
    remove_background: bool = False  # whether to subtract each pixel's mean over the clip


@dataclass
class Consensus(Options, section="method", needs="method=recognizer, or adafocus_v2 with the temporal shift"):
    # How the frames of a clip are joined to a prediction: average (the mean of their logits, as in the papers), or
    # change (logits of their mean features and of how the features change, see `adafocus.layers.heads`).
    consensus: Annotated[str, OneOf(CONSENSUSES)] = "average"


@dataclass
class Dropout(Options, section="schedule", needs=_CLASSIFIER):
    dropout: Share = 0.0  # dropout probability of the classifier over both networks


@dataclass
class FrozenNorm(Options, section="schedule", needs="a method that is trained in one stage"):
    freeze_norm: bool = False  # whether BatchNorm keeps its running statistics fixed


#: Options that every method with a glance network reads.
GLANCE: frozenset[type[Options]] = frozenset((Patch, FocusFrames, GlanceNetwork, Controls, LrMults))
