"""Runs the programs that `adafocus export` writes. Needs torch alone, and PyAV to read a video.

The pixels are made exactly as the package makes them with dataset.reader=pyav; its faster reader rounds some of them
another way.

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
    """Runs the programs one after the other.

    Args:
        folder: with export.json.
        frames: normalized sets of frames (B, T, 3, S, S) by name; sets that are `of` another are taken from it.

    Returns:
        every value by its name; `logits` (B, K) is the answer.
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
    """Which frames of a video of `total` frames make a set of `count`; export.json says the rules in words."""
    if rule == "fractional":
        return [math.floor((i + 0.5) / count * total) for i in range(count)]
    if rule in ("middle", "uniform-1") and (total > count or rule == "uniform-1" or short == "spread"):
        return [math.floor(total / count / 2 + total / count * i) for i in range(count)]
    if rule == "middle":  # a short video
        return [0] * count if short == "first_frame" else [min(i, total - 1) for i in range(count)]
    raise SystemExit(f"this example does not know the rule {rule!r}")


def short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) when the shorter side becomes `size` and the longer one is cut to whole pixels."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def decode(video: str, side: int | None) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of a file, upright, reduced while they are decoded to the short side `side`."""
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
    """(T, 3, H, W) uint8, bilinear with antialiasing, rounded to uint8 again."""
    if frames.shape[-2:] == (height, width):
        return frames
    return functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def preprocess(frames: np.ndarray, described: dict[str, Any]) -> Tensor:
    """(T, H, W, 3) uint8 frames as `decode` gives them to (T, 3, S, S), normalized, as export.json says."""
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
    """Every value of the programs for a video file (see `join`), and what export.json says."""
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
