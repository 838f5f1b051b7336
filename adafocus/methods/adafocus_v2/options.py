"""The options that only `method=adafocus_v2` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from adafocus.core import choices, registry
from adafocus.core.domains import Between, OneOf, Weight
from adafocus.methods.options import Options

ORDERS = ("coarse_to_fine", "temporal")


@dataclass
class Policy(Options, section="policy", needs="method=adafocus_v2"):
    name: Annotated[str, OneOf(choices.POLICIES, registry.POLICIES)] = "paper"  # the policy, or a plug-in's
    options: dict[str, Any] = field(default_factory=dict)  # options of a plug-in's policy


@dataclass
class HeatMap(
    Options, section="policy", needs="policy=heatmap, or another policy with a heat map (method=adafocus_v2)"
):
    """See `adafocus.policies.heat_map.HeatMapPolicy`."""

    cells: Annotated[int, Between(2, 256)] = 16  # number of cells of the heat map along each side
    window: Weight = 0.5  # reach of the soft arg-max around the best cell in patch sides; 0: the whole map
    # Whether the policy reads how much each cell moves, and begins with patches where most moves (on TSM).
    motion: bool = False
    peaks: Annotated[int, Between(1, 16)] = 1  # number of patches, which all frames share (more than 1 on TSM)
    apart: Weight = 1.0  # smallest distance of the patches' centers in y or x, in patch sides
    through_crop: bool = True  # whether the loss behind the crop trains the policy
    # Weight of the loss that makes the scores learn how much a place tells, from the random places; 0: none.
    places_weight: Weight = 0.0


@dataclass
class Diversity(Options, section="method", needs="method=adafocus_v2"):
    diversity: bool = True  # whether training adds a pass at random patches, as in the paper


@dataclass
class Order(Options, section="method", needs="method=adafocus_v2 on plain backbones"):
    order: Annotated[str, OneOf(ORDERS)] = "coarse_to_fine"  # order in which frames are processed
