"""The options of `method=adafocus_v2`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from adafocus.core import choices, registry
from adafocus.core.domains import Between, OneOf, Weight
from adafocus.methods.options import Options

ORDERS = ("coarse_to_fine", "temporal")


@dataclass
class Policy(Options, section="policy", needs="method=adafocus_v2"):
    name: Annotated[str, OneOf(choices.POLICIES, registry.POLICIES)] = "paper"  # the paper's, heatmap, or a plug-in's
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the factory of a plug-in's policy


@dataclass
class HeatMap(
    Options, section="policy", needs="policy=heatmap, or another policy with a heat map (method=adafocus_v2)"
):
    """Options of the heat-map policy (`adafocus.policies.heat_map.HeatMapPolicy`)."""

    cells: Annotated[int, Between(2, 256)] = 16  # number of cells of the heat map along each side
    window: Weight = 0.5  # reach of the soft arg-max around the best cell, in patch sides; 0: the whole map
    # Whether the policy also reads the motion in each cell and starts with patches where it is largest (on TSM).
    motion: bool = False
    learned: bool = True  # whether the policy learns; false: patches are where the motion is largest
    peaks: Annotated[int, Between(1, 16)] = 1  # number of patches, which all frames share (more than 1 on TSM)
    apart: Weight = 1.0  # smallest distance of the patches' centers in y or x, in patch sides
    through_crop: bool = True  # whether the policy gets gradients through the crop
    # Weight of the loss by which the scores learn how well each location predicts the label; 0: none. It needs the
    # random patches of `method.diversity`.
    places_weight: Weight = 0.0


@dataclass
class Diversity(Options, section="method", needs="method=adafocus_v2"):
    diversity: bool = True  # whether training adds a pass at random patches, as in the paper


@dataclass
class Order(Options, section="method", needs="method=adafocus_v2 on plain backbones"):
    order: Annotated[str, OneOf(ORDERS)] = "coarse_to_fine"  # order in which frames are processed
