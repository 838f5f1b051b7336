"""Labels every video of a folder from Python and writes a CSV of labels, scores and costs.

`adafocus predict RUN VIDEOS --table labels.csv` does the same and more; this program shows how to process
each prediction in Python.

python examples/folder_of_videos.py outputs/RUN VIDEOS labels.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import adafocus


def main() -> None:
    run, folder, out = sys.argv[1:4]
    videos = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".mp4", ".mkv", ".webm", ".avi"))
    predictor = adafocus.load(run)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "score", "multiply-adds", "error"])
        for prediction in predictor.each(videos):  # one by one; a video that cannot be read has an error
            label, score = (prediction.labels[0], prediction.scores[0]) if prediction.labels else ("", "")
            writer.writerow([prediction.video, label, score, prediction.cost, prediction.error or ""])


if __name__ == "__main__":
    main()
