"""The options of a recipe that are off by default, in whole runs of this process on synthetic videos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import build
from adafocus.core.errors import UserError
from adafocus.data.annotations import Record
from adafocus.data.dataset import VideoClips
from adafocus.runs import job
from adafocus.training.trainer import Trainer

EVERY = (
    "schedule.ema_decay=0.9",
    "schedule.label_smoothing=0.1",
    "schedule.mixup_alpha=0.4",
    "schedule.cutmix_alpha=1",
    "schedule.layer_decay=0.7",
    "evaluate.examples=0",
)
FEW = ("dataset.train_videos=24", "schedule.epochs=2", "evaluate.controls=false")


def train(folder: Path, *typed: str, status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    assert job.run(folder, composed(*runs.arguments(), *typed)) == status
    return folder


def test_an_interrupted_run_with_every_option_ends_with_the_same_bits(tmp_path: Path, monkeypatch) -> None:
    whole = train(tmp_path / "whole", *EVERY, *FEW)
    step = Trainer._step

    def fail(trainer: Trainer, batches) -> int:
        if trainer.progress.step == 4:
            raise UserError("stop")
        return step(trainer, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", fail)
        train(tmp_path / "cut", *EVERY, *FEW, "output.save_seconds=0", status=2)
    cut = train(tmp_path / "cut", *EVERY, *FEW)
    runs.same(cut, whole)
    ours, theirs = (torch.load(place / "last.pt", weights_only=True) for place in (cut, whole))
    assert all(torch.equal(ours["trained"][key], value) for key, value in theirs["trained"].items())
    different = [key for key, value in theirs["model"].items() if not torch.equal(value, theirs["trained"][key])]
    assert any(key.endswith("running_mean") for key in different) and any(key.endswith("weight") for key in different)


def test_what_is_evaluated_is_what_is_saved(tmp_path: Path) -> None:
    """The score and the loss of the last epoch are those of the averaged weights in the checkpoint."""
    from adafocus import api

    folder = train(tmp_path / "run", "method=recognizer", "schedule.ema_decay=0.9", "evaluate.examples=0")
    last = [line for line in runs.lines(folder) if line["kind"] == "evaluate"][-1]
    assert last["top1"] == pytest.approx(runs.summary(folder)["score"])
    predictor = api.load(folder / "last.pt", device="cpu")
    model = torch.load(folder / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(value, model[key]) for key, value in predictor.model.state_dict().items())
    assert last["loss"] > 0


@pytest.mark.parametrize("method", ["recognizer", "adafocus_v1", "uni_adafocus"])
def test_every_method_takes_every_option(tmp_path: Path, method: str) -> None:
    tiny = ["dataset.train_videos=16", "dataset.val_videos=4", "schedule.epochs=1"]
    own = {"uni_adafocus": ["patch.smallest=8"]}.get(method, [])
    folder = train(tmp_path / "run", *EVERY, *tiny, *own, f"method={method}")
    losses = [line["loss"] for path in folder.rglob("metrics.jsonl") for line in runs.lines(path.parent)]
    assert len(losses) > 2 and all(loss == loss for loss in losses)


def test_patience_ends_training_after_epochs_that_are_no_better(tmp_path: Path, monkeypatch) -> None:
    scores = iter([10.0, 30.0, 20.0, 30.0, 40.0])
    evaluate = Trainer._evaluate

    def scored(trainer: Trainer) -> None:
        trainer.evaluate = lambda: {"top1": next(scores)}
        evaluate(trainer)

    monkeypatch.setattr(Trainer, "_evaluate", scored)
    typed = ("schedule.epochs=6", "schedule.patience=2", "schedule.select=best", "evaluate.controls=false")
    folder = train(tmp_path / "run", *typed, "evaluate.examples=0")
    lines = [line["top1"] for line in runs.lines(folder) if line["kind"] == "evaluate"]
    assert lines == [10.0, 30.0, 20.0, 30.0]
    assert runs.summary(folder)["best"] == {"score": 30.0, "epoch": 1}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["schedule.patience=2"], "set schedule.select=best"),
        (["schedule.patience=3", "schedule.select=best"], "never ends a training"),
        (["schedule.mixup_alpha=0.2", "schedule.accumulation_steps=8"], "which with schedule.batch_size=8 is one"),
        (["schedule.class_weights=even"], "choose one of none, balanced"),
        (["schedule.ema_decay=1"], "below 1"),
        (["dataset.randaugment_magnitude=31"], "between 0 and 30"),
    ],
)
def test_what_makes_no_sense_is_one_line(typed: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        composed(*runs.arguments(), *typed)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_balanced_sampling_counts_every_video_for_its_first_label() -> None:
    settings = composed("method=recognizer", "dataset=folder", "dataset.root=x", "schedule.sampling=balanced")
    clips = VideoClips.__new__(VideoClips)
    clips.records = [Record("a.mp4", (1,)), Record("b.mp4", (0, 2))]
    assert build.sampled_classes(settings, clips) == [1, 0]
    settings.schedule.sampling = "shuffled"
    assert build.sampled_classes(settings, clips) is None
