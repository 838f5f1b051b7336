"""Losses of 30 training steps of every method and stage against the kept curves in `golden/losses`.

Each curve comes from a whole run of the trainer in this process with tiny networks, synthetic videos and a fixed seed.
It detects what comparisons of single modules cannot: a change of the order of the data, of random numbers, of the
learning-rate schedule, of parameter groups or of a stage.

After a change that is meant to change training, write the curves again with

    python -m pytest tests/test_golden_losses.py --write-losses

and commit the new files with the change.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import runs
from helpers.configs import composed

from adafocus import config
from adafocus.runs import job

FOLDER = Path(__file__).parent / "golden" / "losses"
STEPS = 30
SMALL = runs.arguments(
    dataset__train_videos="40",
    dataset__val_videos="4",
    schedule__batch_size="4",
    schedule__base_batch_size="4",
    schedule__lr="0.005",
    schedule__evaluate_every="3",
    schedule__evaluate_last="0",
    evaluate__controls="false",
    evaluate__examples="0",
)
TSM = ("backbone=tiny_tsm", "segments.glance=4")
#: Overrides for the smallest backbone into which non-local blocks can be inserted.
NON_LOCAL = ("backbone.focus=resnet34", "backbone.weights=none")
#: Curve -> overrides that it adds to those of the small run.
CURVES = {
    "adafocus_v1": ("method=adafocus_v1", "segments=4"),
    "adafocus_v1_tsm": ("method=adafocus_v1", *TSM, "segments.focus=6"),
    "adafocus_v2": ("method=adafocus_v2", "segments=4"),
    "adafocus_v2_tsm": ("method=adafocus_v2", *TSM, "segments.focus=6"),
    "uni_adafocus": ("method=uni_adafocus", "segments.glance=4", "segments.focus=3", "patch.smallest=8"),
    "uni_adafocus_tsm": ("method=uni_adafocus", *TSM, "segments.focus=3", "patch.smallest=8"),
    "tsn": ("method=recognizer", "segments=4"),
    "tsm": ("method=recognizer", *TSM),
    "tam": ("method=recognizer", "backbone=tiny_tam", "segments.glance=4"),
    "nl_tsm": ("method=recognizer", "backbone=r50_nl_tsm", *NON_LOCAL, "segments.glance=4", "schedule.lr=0.0001"),
}


def train(name: str, folder: Path) -> dict[str, list[float]]:
    """Trains one curve; returns the losses of the steps of each stage."""
    settings = composed(*SMALL, *CURVES[name])
    assert job.run(folder, settings) == 0
    *first, last = config.stages(settings)
    places = {stage: folder / "stages" / stage for stage in first} | {last: folder}
    return {
        stage: [line["loss"] for line in runs.lines(place) if line["kind"] == "train"]
        for stage, place in places.items()
    }


def tolerance(step: int) -> float:
    """The relative deviation that the kernels of another CPU may cause; it grows with the step, because each step
    starts from the weights of the step before.

    Measured on one CPU with oneDNN switched off and two threads: at most 2e-5 a step (tsm) and 7e-7 a step (tam).
    """
    return 1e-3 * step


@pytest.mark.parametrize("name", CURVES)
def test_losses(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = train(name, tmp_path)
    file = FOLDER / f"{name}.txt"
    if request.config.getoption("--write-losses"):
        rows = [
            ("step", *found),
            *((step + 1, *(f"{losses[step]:.6g}" for losses in found.values())) for step in range(STEPS)),
        ]
        file.write_text("".join(" ".join(f"{cell:>9}" for cell in row) + "\n" for row in rows))
    head, *rows = (line.split() for line in file.read_text().splitlines())
    assert head == ["step", *found] and len(rows) == STEPS
    for row in rows:
        step = int(row[0])
        for (stage, losses), kept in zip(found.items(), row[1:], strict=True):
            assert losses[step - 1] == pytest.approx(float(kept), rel=tolerance(step)), (name, stage, step)
