"""A teacher: its logits are computed once, kept beside the run, and continued; other classes are one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import config
from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_json
from adafocus.runs import job, teacher

FEW = ("dataset.train_videos=24", "schedule.epochs=2", "evaluate.controls=false", "evaluate.examples=0")


def train(folder: Path, *typed: str, status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    settings = composed(*runs.arguments(), *FEW, *typed)
    write_json(folder / "config.json", config.to_dict(settings))
    assert job.run(folder, settings) == status
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """The teacher: a recognizer that sees other frames than the student, on synthetic videos of another seed."""
    return train(tmp_path_factory.mktemp("teacher") / "large", "seed=5", "method=recognizer", "segments=4")


def test_logits_are_those_of_the_teacher_and_are_computed_once(large: Path, tmp_path: Path, monkeypatch) -> None:
    from adafocus import api, build

    monkeypatch.setattr(teacher, "CHUNK", 7)
    student = ("segments=8", f"teacher.checkpoint={large}")
    folder = train(tmp_path / "run", *student)
    table = torch.load(folder / teacher.FILE, weights_only=True)
    assert table["done"].all() and table["logits"].shape == (24, 10)
    predictor = api.load(large / "last.pt", device="cpu")
    data = build.data(composed(*runs.arguments(), *FEW, "method=recognizer", "segments=4", "dataset.frames=8"))
    frames = torch.stack([data.train[-1, index].frames for index in range(24)])
    with torch.no_grad():
        expected = predictor.model(predictor.normalize(frames)).logits
    assert torch.allclose(table["logits"], expected, atol=1e-5)
    plain = train(tmp_path / "plain", "segments=8")
    losses = [[line["loss"] for line in runs.lines(place) if line["kind"] == "train"] for place in (folder, plain)]
    assert all(taught > alone for taught, alone in zip(*losses, strict=True))

    # A run that has begun needs the teacher no more.
    monkeypatch.setattr(teacher.predict, "load", lambda *_, **__: pytest.fail("the teacher was read again"))
    (folder / "summary.json").unlink()
    assert job.run(folder, composed(*runs.arguments(), *FEW, *student)) == 0


def test_an_interrupted_computation_continues(large: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(teacher, "CHUNK", 7)
    typed = ("method=recognizer", f"teacher.checkpoint={large}")
    whole = train(tmp_path / "whole", *typed)
    seen: list[int] = []
    answer = teacher.answer

    def counted(stage, batch, *rest):
        seen.extend(batch.index.tolist())
        if len(seen) == 14:
            raise UserError("stop")
        return answer(stage, batch, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(teacher, "answer", counted)
        train(tmp_path / "cut", *typed, status=2)
        assert torch.load(tmp_path / "cut" / teacher.FILE, weights_only=True)["done"].sum() == 7
        train(tmp_path / "cut", *typed)
    assert seen == [*range(14), *range(7, 24)]
    runs.same(tmp_path / "cut", whole)


def test_a_table_of_another_teacher_or_a_damaged_one_is_computed_again(large: Path, tmp_path: Path) -> None:
    typed = ("method=recognizer", f"teacher.checkpoint={tmp_path}/other.pt", "schedule.epochs=1")
    shutil.copy(large / "last.pt", tmp_path / "other.pt")
    folder = train(tmp_path / "run", *typed)
    first = torch.load(folder / teacher.FILE, weights_only=True)
    content = torch.load(large / "last.pt", weights_only=True)
    content["model"]["head.bias"] += 1
    torch.save(content, tmp_path / "other.pt")
    (folder / "last.pt").unlink()  # nothing was trained yet
    train(folder, *typed)
    second = torch.load(folder / teacher.FILE, weights_only=True)
    assert torch.allclose(second["logits"], first["logits"] + 1, atol=1e-5) and second["teacher"] != first["teacher"]
    (folder / teacher.FILE).write_bytes(b"torn")
    train(folder, *typed)
    again = torch.load(folder / teacher.FILE, weights_only=True)
    assert torch.equal(again["logits"], second["logits"])


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("dataset.classes=8",), "has other classes: 10 there and 8 here"),
        (("dataset.frame_size=40",), "set dataset.frame_size=32"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(large: Path, tmp_path: Path, typed: tuple, says: str) -> None:
    folder = train(tmp_path / "run", *typed, "method=recognizer", f"teacher.checkpoint={large}", status=2)
    error = read_json(folder / "status.json")["error"]
    assert says in error and "\n" not in error
