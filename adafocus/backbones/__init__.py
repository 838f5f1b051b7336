"""Backbones: networks from frames to feature maps, without a classification head. A backbone is a module with

- a forward call that takes images (N, 3, H, W) and returns feature maps (N, width, h, w);
- `width`: the number of channels of the maps;
- `map_size(size)`: height and width (h, w) of the maps for square images of `size` pixels.

`backbones.temporal` inserts temporal modules. After that, the images must be the frames of clips, (B * T, 3, H, W).
`adafocus.register_backbone` adds a backbone, and `features_of` makes one of any torch module that returns such maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adafocus.backbones.base import Backbone
from adafocus.backbones.features import Features, check_backbone, features_of
from adafocus.backbones.mobilenet import mobilenet_v2
from adafocus.backbones.resnet import DEPTHS, ResNet
from adafocus.backbones.tiny import tiny_focus, tiny_glance
from adafocus.backbones.vit import ViT

__all__ = ["BACKBONES", "Backbone", "Features", "check_backbone", "features_of"]

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mobilenet_v2": mobilenet_v2,
    **{name: partial(ResNet, name) for name in DEPTHS},
    "tiny_glance": tiny_glance,
    "tiny_focus": tiny_focus,
    "tiny_vit": ViT,
}
