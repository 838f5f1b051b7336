"""Runs the programs that `adafocus export` writes. Needs torch alone, and PyAV to read a video.

adafocus export outputs/RUN --out exported
python examples/exported.py exported clip.mp4
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor


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


def positions(rule: str, count: int, total: int) -> list[int]:
    """Which frames of a video of `total` frames make a set of `count`, by the two rules that a single clip has."""
    if rule.startswith("fractional"):
        return [math.floor((i + 0.5) / count * total) for i in range(count)]
    if rule.startswith("middle") and total > count:
        return [math.floor(total / count / 2 + total / count * i) for i in range(count)]
    raise SystemExit(f"this example does not know the rule {rule!r} for {total} frames")


def main() -> None:
    import av

    folder, video = Path(sys.argv[1]), sys.argv[2]
    described = json.loads((folder / "export.json").read_text())
    pixels = described["input"]
    with av.open(video) as container:
        frames = torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)])
    # The package resizes as its protocol says (export.json names it); stretching the frame is near enough for a look.
    frames = torch.nn.functional.interpolate(
        frames.permute(0, 3, 1, 2).float(), (pixels["size"], pixels["size"]), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(pixels[name]).view(-1, 1, 1) for name in ("mean", "std"))
    frames = (frames / 255 - mean) / std
    sets = {
        name: frames[positions(entry["rule"], entry["count"], len(frames))][None]
        for name, entry in described["frames"].items()
        if "rule" in entry
    }
    values = join(folder, sets)
    scores = values["logits"].softmax(1)[0]
    for score, number in zip(*scores.topk(min(5, len(scores))), strict=True):
        sys.stdout.write(f"{100 * score:5.1f} %  {described['classes'][int(number)]}\n")
    if "chosen" in values:
        sys.stdout.write(f"looked at candidates {values['chosen'][0].tolist()}\n")


if __name__ == "__main__":
    main()
