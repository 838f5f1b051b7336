"""Resizing of frames for the glance network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resized(frames: Tensor, size: int, rule: str = "aligned") -> Tensor:
    """Resizes square frames (N, C, S, S) to (N, C, size, size).

    Args:
        frames: the frames.
        size: side of the result in pixels.
        rule: "aligned": bilinear with aligned corners, no antialiasing, as `AdaFocus.forward` in models/adafocus_v2.py
            of LeapLabTHU/AdaFocusV2; "area": each pixel is the mean of the area that it covers.
    """
    if size == frames.shape[-1]:
        return frames
    if rule == "aligned":
        return functional.interpolate(frames, (size, size), mode="bilinear", align_corners=True)
    return functional.interpolate(frames, (size, size), mode="area")
