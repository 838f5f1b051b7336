"""Labels a video from Python and draws the patches that the network looked at.

python examples/look.py outputs/RUN clip.mp4 looked.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import adafocus
from adafocus.commands.drawing import draw


def main() -> None:
    run, video, picture = sys.argv[1:4]
    predictor = adafocus.load(run)
    prediction = predictor(video)
    for label, score in zip(prediction.labels[:3], prediction.scores, strict=False):
        sys.stdout.write(f"{100 * score:5.1f} %  {label}\n")
    for frame, box in zip(prediction.frames, prediction.boxes, strict=False):
        x1, y1, x2, y2 = (round(value) for value in box)
        sys.stdout.write(f"frame {frame}: {x2 - x1} x {y2 - y1} pixels at row {y1}, column {x1}\n")
    sys.stdout.write(f"{prediction.cost / 1e6:.1f} M multiply-adds, {prediction.seconds:.2f} s\n")
    draw(prediction, Path(picture))


if __name__ == "__main__":
    main()
