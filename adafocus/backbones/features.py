"""`Features`, which makes a backbone of any module that maps images to feature maps, or of a network of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn

from adafocus.backbones.base import Backbone


class Features(Backbone):
    """A backbone from a module that maps images (N, 3, H, W) to (N, width, h, w), with shapes measured on meta tensors.

    With a network of timm, `forward_features` is called: its tokens, without class and register tokens, become a map,
    and channels-last maps become channels-first. Parts that this does not use (the classifier, in MobileNetV3 and V4
    also the convolution after pooling) are removed.

    Args:
        module: without a classification head, for example `torchvision.models.efficientnet_b0().features`; or any
            classification network of timm.
        size: side in pixels of the images of the first measurement.
        mean, std: the normalization that the module was trained with, a number for each of R, G and B, to which
            `renormalize` converts; None: that in the `pretrained_cfg` of a network of timm, else no conversion.

    Raises:
        ValueError: the module's output is not such a map.
    """

    mean: Tensor
    std: Tensor
    clip_mean: Tensor
    clip_std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        size: int = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        described = getattr(module, "pretrained_cfg", None)
        described = described if isinstance(described, Mapping) and hasattr(module, "forward_features") else None
        self.from_timm = described is not None
        self.layers = module
        if described is not None:
            self._remove_unused(size)
            mean, std = mean or described.get("mean"), std or described.get("std")
        self.width = self._shape(size)[1]
        self.own = [*mean, *std] if mean and std else []
        self.given: list[float] = []
        if mean and std:  # buffers, so that a checkpoint keeps the normalization that it was trained with
            self.register_buffer("mean", _per_channel(mean))
            self.register_buffer("std", _per_channel(std))

    def renormalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the normalization (x - mean) / std of the input, which `forward` then converts to the module's own.

        The conversion (x * std + mean - own mean) / own std is skipped if both normalizations are equal or if the
        module's own is not known.
        """
        if self.own:
            self.given = [*mean, *std]
            self.register_buffer("clip_mean", _per_channel(mean), persistent=False)
            self.register_buffer("clip_std", _per_channel(std), persistent=False)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        if self.own and not self.mean.is_meta:
            self.own = torch.cat((self.mean, self.std)).flatten().tolist()

    def forward(self, images: Tensor) -> Tensor:
        """Computes feature maps (N, width, h, w) of images (N, 3, H, W)."""
        return self._maps(self.layers, self.normalized(images))

    def normalized(self, images: Tensor) -> Tensor:
        """Converts input images (..., 3, H, W) to the module's own normalization, as `renormalize` describes."""
        if any(abs(given - own) > 1e-6 for given, own in zip(self.given, self.own, strict=False)):
            return torch.addcmul((self.clip_mean - self.mean) / self.std, images, self.clip_std / self.std)
        return images

    def map_size(self, size: int) -> tuple[int, int]:
        """Returns height and width (h, w) of the map for square images of `size` pixels."""
        return self._shape(size)[2:]

    def _maps(self, layers: Any, images: Tensor) -> Tensor:
        if not self.from_timm:
            return layers(images)
        maps = layers.forward_features(images)
        if not isinstance(maps, Tensor):
            return maps
        if maps.ndim == 3:  # (N, tokens, C) of a square image
            maps = maps[:, getattr(layers, "num_prefix_tokens", 0) :]
            side = isqrt(maps.shape[1])
            return maps.transpose(1, 2).unflatten(2, (side, side)) if side * side == maps.shape[1] else maps
        layout = getattr(layers, "output_fmt", "NCHW")
        return maps.permute(0, 3, 1, 2) if getattr(layout, "value", layout) == "NHWC" else maps

    def _shape(self, size: int) -> tuple[int, int, int, int]:
        measured = deepcopy(self.layers).to("meta").eval()
        # Temporal modules need a multiple of the clip's number of frames.
        count = max((getattr(module, "segments", 1) for module in measured.modules()), default=1)
        with torch.no_grad():
            try:
                found = self._maps(measured, torch.empty(count, 3, size, size, device="meta"))
            except (AssertionError, RuntimeError, TypeError, IndexError, ValueError) as error:
                reason = (str(error) or type(error).__name__).partition("\n")[0]
                raise ValueError(
                    f"{type(self.layers).__name__} makes no map of images of {size} pixels ({reason})"
                ) from error
        if not isinstance(found, Tensor) or found.ndim != 4:
            kind = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"a backbone makes a map (N, C, h, w) of (N, 3, H, W); {type(self.layers).__name__} gives {kind}"
            )
        count, width, height, across = found.shape
        return count, width, height, across

    def _remove_unused(self, size: int) -> None:
        """Removes the children with parameters that `forward_features` does not call."""
        measured = deepcopy(self.layers).to("meta").eval()
        called: set[str] = set()

        def note(name: str) -> Any:
            return lambda *_: called.add(name.partition(".")[0])

        for name, module in measured.named_modules():
            module.register_forward_pre_hook(note(name))
        with torch.no_grad():
            try:
                self._maps(measured, torch.empty(1, 3, size, size, device="meta"))
            except (AssertionError, RuntimeError, TypeError, IndexError, ValueError):
                return  # `_shape` raises an error with the reason
        for name, child in list(self.layers.named_children()):
            if name not in called and next(child.parameters(), None) is not None:
                setattr(self.layers, name, nn.Identity())


def _per_channel(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(list(numbers))[:, None, None]


def features_of(
    module: nn.Module, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Features:
    """Makes a backbone of a module that maps images (N, 3, H, W) to (N, C, h, w), or of any network of timm.

    adafocus.register_backbone("efficientnet_b0", lambda: features_of(torchvision.models.efficientnet_b0().features))
    adafocus.register_backbone("mine", lambda: features_of(timm.create_model("mobilenetv4_conv_small", True)))
    """
    described = getattr(module, "pretrained_cfg", None)
    size = described.get("input_size", (3, 224, 224))[-1] if isinstance(described, Mapping) else 224
    return Features(module, size=size, mean=mean, std=std)


def check_backbone(name: str, backbone: nn.Module) -> Backbone:
    """Checks that a plug-in's backbone has `width` and `map_size`, and returns it.

    Raises:
        ValueError: it lacks one of them.
    """
    missing = [what for what in ("width", "map_size") if not hasattr(backbone, what)]
    if not isinstance(backbone, nn.Module) or missing:
        raise ValueError(
            f"backbone {name!r} is a {type(backbone).__name__} without {' and '.join(missing) or 'forward'}; "
            f"adafocus.backbones.features_of makes a backbone of a module"
        )
    return cast(Backbone, backbone)
