"""Frames to features. A backbone is a module with

- called with images (N, 3, H, W) it gives a map (N, width, h, w);
- `width`: channels of that map;
- `map_size(size)`: (h, w) for square images of `size`.

It has no classification head. Temporal modules are inserted by `backbones.temporal`; from then on images are frames of
clips in a row, (B * T, 3, H, W).

`adafocus.register_backbone` adds one; `features_of` makes any torch module with such a map into one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from adafocus.backbones.features import Features, check_backbone, features_of
from adafocus.backbones.mobilenet import mobilenet_v2
from adafocus.backbones.resnet import DEPTHS, ResNet
from adafocus.backbones.tiny import tiny_focus, tiny_glance

__all__ = ["BACKBONES", "Features", "check_backbone", "features_of"]

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    **{name: partial(ResNet, name) for name in DEPTHS},
    "tiny_glance": tiny_glance,
    "tiny_focus": tiny_focus,
}
