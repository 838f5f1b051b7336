"""The frames that a glance network sees: the whole picture, small."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resized(frames: Tensor, size: int, rule: str = "aligned") -> Tensor:
    """(N, C, S, S) to (N, C, size, size).

    Args:
        rule: "aligned": bilinear with aligned corners, no antialiasing (the released code); "area": the mean over what a
            pixel covers.
    """
    if size == frames.shape[-1]:
        return frames
    if rule == "aligned":
        return functional.interpolate(frames, (size, size), mode="bilinear", align_corners=True)
    return functional.interpolate(frames, (size, size), mode="area")
