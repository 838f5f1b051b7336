"""Example of a plug-in that adds a backbone, a policy, a data set, a method and a logger to adafocus.

    python run.py "plugins=[examples.plugin]" dataset=stripes backbone=shuffle method=fixed_place

The options of these names are in the folder conf/ next to this file. docs/extending.md explains each file.
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
    """torchvision's ShuffleNet V2 x0.5 without its classifier, with random weights."""
    from torchvision.models import shufflenet_v2_x0_5

    net = shufflenet_v2_x0_5()
    return features_of(nn.Sequential(net.conv1, net.maxpool, net.stage2, net.stage3))


adafocus.register_backbone("shufflenet", shufflenet)
adafocus.register_policy("warmest", WarmestPlace)
adafocus.register_dataset("stripes", Stripes)
adafocus.register_logger("last_line", LastLine)
adafocus.register_method(FixedPlaceMethod)

__all__: list[Any] = []
