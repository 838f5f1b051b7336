"""A plug-in: a backbone, a policy, a data set, a method and a logger that adafocus does not have, each by its name.

    python run.py "plugins=[examples.plugin]" dataset=stripes backbone=shuffle method=fixed_place

`conf/` beside this file holds the options that these names stand for. docs/extending.md goes through it file by file.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import adafocus
from adafocus.backbones import features_of

from .logger import LastLine
from .method import FixedPlaceMethod
from .policy import WarmestPlace
from .stripes import Stripes


def shufflenet() -> nn.Module:
    """torchvision's ShuffleNet V2 x0.5 up to its last map, without weights."""
    from torchvision.models import shufflenet_v2_x0_5

    net = shufflenet_v2_x0_5()
    return features_of(nn.Sequential(net.conv1, net.maxpool, net.stage2, net.stage3))


adafocus.register_backbone("shufflenet", shufflenet)
adafocus.register_policy("warmest", WarmestPlace)
adafocus.register_dataset("stripes", Stripes)
adafocus.register_logger("last_line", LastLine)
adafocus.register_method(FixedPlaceMethod)

__all__: list[Any] = []
