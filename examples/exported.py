"""Runs the programs that `adafocus export` writes, without the package adafocus. It needs torch, and PyAV to read a
video.

Frames are decoded and resized exactly as the package does with dataset.reader=pyav; its faster reader rounds some
pixels differently.

adafocus export outputs/RUN --out exported
python examples/exported.py exported clip.mp4
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def join(folder: Path, frames: dict[str, Tensor]) -> dict[str, Tensor]:
    """Runs the exported programs one after the other, each with the outputs of earlier ones that it needs.

    Args:
        folder: the folder that `adafocus export` wrote, with export.json.
        frames: name of an input -> normalized frames (B, T, 3, S, S); an input that export.json marks with `of` is a
            selection of the frames of another input.

    Returns:
        The outputs of all programs by name; `logits` (B, K) is the prediction.
    """
    described = json.loads((folder / "export.json").read_text())
    values = dict(frames)
    for program in described["programs"]:
        for name in program["inputs"]:
            if name not in values:
                of, at = described["frames"][name]["of"], described["frames"][name]["at"]
                positions = values[at] if isinstance(at, str) else torch.tensor([at])
                values[name] = values[of][torch.arange(len(values[of]))[:, None], positions]
        outputs = torch.export.load(folder / program["file"]).module()(*(values[name] for name in program["inputs"]))
        values.update(zip(program["outputs"], outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    return values


def positions(rule: str, short: str, count: int, total: int) -> list[int]:
    """The indices of `count` frames of a video of `total` frames, by a rule that export.json describes."""
    if rule == "fractional":
        return [math.floor((i + 0.5) / count * total) for i in range(count)]
    if rule in ("middle", "uniform-1") and (total > count or rule == "uniform-1" or short == "spread"):
        return [math.floor(total / count / 2 + total / count * i) for i in range(count)]
    if rule == "middle":  # a video with fewer frames than segments
        return [0] * count if short == "first_frame" else [min(i, total - 1) for i in range(count)]
    raise SystemExit(f"this example does not know the rule {rule!r}")


def short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of a frame whose shorter side is resized to `size`; the longer one is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def decode(video: str, side: int | None) -> np.ndarray:
    """The frames (T, H, W, 3) uint8 of a video file, rotated upright and resized to a short side of `side` pixels."""
    import av

    frames = []
    with av.open(video) as container:
        for frame in container.decode(video=0):
            height, width, reduced = frame.height, frame.width, {}
            if side is not None and side < min(height, width):
                height, width = short_side(height, width, side)
                reduced = {"height": height, "width": width, "interpolation": "BICUBIC"}
            image = frame.to_ndarray(format="rgb24", **reduced)
            frames.append(np.rot90(image, (int(frame.rotation) // 90) % 4))
    return np.stack(frames)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Resizes frames (T, 3, H, W) uint8 by bilinear interpolation with antialiasing, and rounds them to uint8."""
    if frames.shape[-2:] == (height, width):
        return frames
    return functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def preprocess(frames: np.ndarray, described: dict[str, Any]) -> Tensor:
    """Resizes, crops and normalizes frames (T, H, W, 3) uint8 of `decode` to (T, 3, S, S) as export.json describes."""
    pixels, size = described["input"], described["input"]["size"]
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if pixels["fit"] == "stretch":
        clip = resize(clip, size, size)
    elif pixels["crops"] == 1:
        clip = resize(clip, *short_side(*clip.shape[-2:], pixels["short_side"]))
        top, left = (round((side - size) / 2) for side in clip.shape[-2:])
        clip = clip[..., top : top + size, left : left + size]
    else:
        raise SystemExit(f"this example takes one crop; the protocol has {pixels['crops']}")
    mean, std = (torch.tensor(pixels[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (clip / 255 - mean) / std


def scores(folder: Path, video: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The outputs of all programs for a video file (see `join`), and the content of export.json."""
    described = json.loads((folder / "export.json").read_text())
    frames = decode(video, described["input"]["decode_short_side"])
    sets = {
        name: preprocess(frames[positions(entry["rule"], entry["short"], entry["count"], len(frames))], described)[None]
        for name, entry in described["frames"].items()
        if "rule" in entry
    }
    return join(folder, sets), described


def main() -> None:
    values, described = scores(Path(sys.argv[1]), sys.argv[2])
    found = values["logits"].softmax(1)[0]
    for score, number in zip(*found.topk(min(5, len(found))), strict=True):
        sys.stdout.write(f"{100 * score:5.1f} %  {described['classes'][int(number)]}\n")
    if "chosen" in values:
        sys.stdout.write(f"looked at candidates {values['chosen'][0].tolist()}\n")


if __name__ == "__main__":
    main()
