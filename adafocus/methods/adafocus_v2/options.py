"""The options that only `method=adafocus_v2` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from adafocus.core import choices, registry
from adafocus.core.domains import OneOf
from adafocus.methods.options import Options

ORDERS = ("coarse_to_fine", "temporal")


@dataclass
class Policy(Options, section="policy", needs="method=adafocus_v2"):
    name: Annotated[str, OneOf(choices.POLICIES, registry.POLICIES)] = "paper"  # the policy, or a plug-in's
    options: dict[str, Any] = field(default_factory=dict)  # options of a plug-in's policy


@dataclass
class Order(Options, section="method", needs="method=adafocus_v2 on plain backbones"):
    order: Annotated[str, OneOf(ORDERS)] = "coarse_to_fine"  # order in which frames are processed
