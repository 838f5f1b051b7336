"""Pictures of where a network looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

CELL = 112  # pixels of one frame in the picture, at least
RIGHT, WRONG, PATCH = (46, 160, 67), (218, 54, 51), (255, 213, 0)


def contact_sheet(
    clips: Sequence[np.ndarray],
    where: Sequence[np.ndarray | None],
    patch: int,
    captions: Sequence[str],
    right: Sequence[bool],
    *,
    columns: int = 8,
) -> Image.Image:
    """One row a clip: its frames in time with the patch drawn as a frame, under a caption in green (right) or red.

    Args:
        clips: (T, H, W, 3) uint8 each.
        where: (T, 2) corners as fractions (y, x) of the free range, or None for whole frames.
        patch: its side in pixels of the clip.
        captions, right: of each clip.
        columns: at most so many frames of a clip, evenly spread.
    """
    height, width = clips[0].shape[1:3]
    scale = max(1, -(-CELL // height))
    shown = [np.unique(np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)) for clip in clips]
    gap, line = 4, 16
    sheet = Image.new(
        "RGB",
        (max(map(len, shown)) * (width * scale + gap) + gap, len(clips) * (height * scale + line + 2 * gap)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    top = 0
    for clip, corners, caption, good, frames in zip(clips, where, captions, right, shown, strict=True):
        draw.text((gap, top + 2), caption, fill=RIGHT if good else WRONG)
        for column, frame in enumerate(frames):
            left = gap + column * (width * scale + gap)
            image = Image.fromarray(clip[frame]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + line + gap))
            if corners is not None:
                y, x = corners[frame, 0] * (height - patch) * scale, corners[frame, 1] * (width - patch) * scale
                corner = (left + x, top + line + gap + y)
                box = (*corner, corner[0] + patch * scale - 1, corner[1] + patch * scale - 1)
                draw.rectangle(box, outline=PATCH, width=2)
        top += height * scale + line + 2 * gap
    return sheet
