"""Tests that bad input ends with one line and a non-zero exit status before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import numbered

from adafocus import cli
from adafocus.config import compose as composing

LIST = "train.txt and val.txt"


def folder(tmp_path: Path, train: str = "a/x.mp4 9 0\nb/y.mp4 9 1\n", classes: str = "a\nb\n") -> str:
    root = tmp_path / "data"
    for name, file in (("a", "x.mp4"), ("b", "y.mp4")):
        (root / name).mkdir(parents=True)
        numbered.write(root / name / file, 9)
    (root / "train.txt").write_text(train)
    (root / "val.txt").write_text("a/x.mp4 9 0\nb/y.mp4 9 1\n")
    (root / "classes.txt").write_text(classes)
    return f"dataset.root={root}"


#: Command line, and text that its error line must contain.
COMPOSED = {
    "unknown key": (["pacth.size=3"], "pacth.size is not a key"),
    "unknown nested key": (["patch.sise=128"], "patch.sise is not a key"),
    "wrong type": (["patch.size=big"], "patch.size"),
    "wrong type of a rate": (["schedule.lr=fast"], "schedule.lr"),
    "unknown dataset": (["dataset=imagenet"], "dataset=imagenet is no option; choose one of actnet"),
    "unknown method": (["method=adafocus_v9"], "method=adafocus_v9 is no option"),
    "unknown backbone group": (["backbone=vgg"], "backbone=vgg is no option"),
    "size without a file": (["patch=112"], "patch.size=112"),
    "segments without a file": (["segments=7"], "segments.glance=7"),
    "no recipe": (["dataset=kinetics400"], "no schedule for"),
    "patch larger than the frame": (["patch=128"], "patch.size=128 is larger than dataset.frame_size=96"),
    "unknown stage": (["stage=2"], "choose one of joint"),
    "negative patch": (["patch.size=-3"], "must be between 1 and 4096"),
    "more focus frames than candidates": (
        ["method=uni_adafocus", "segments.focus=8", "segments.pool=6"],
        "segments.pool=6 is less than",
    ),
    "focus frames that the method cannot choose": (["segments.focus=8"], "focuses on the frames it glances at"),
    "odd share of the batch": (["schedule.batch_size=31", "devices=2"], "cannot be shared by devices=2"),
    "unknown mode": (["mode=dance"], "mode='dance' is unknown"),
    "unknown precision": (["precision=fp8"], "fp32, bf16, fp16"),
    "unknown device": (["device=tpu"], "auto, cpu, cuda"),
    "unknown optimizer": (["schedule.optimizer=lion"], "sgd, adamw"),
    "unknown way to choose": (["method.where=best"], "learned, random, center"),
    "unknown reader": (["dataset.reader=vhs"], "decord, pyav"),
    "evaluation of nothing": (["mode=evaluate"], "needs checkpoint="),
    "training from an evaluation's key": (["checkpoint=x"], "is for mode=evaluate"),
    "files nowhere": (["dataset=folder"], "set dataset.root"),
    "negative seed": (["seed=-1"], "seed=-1"),
    "impossible flip": (["dataset.flip=2"], "between 0 and 1"),
    "dropout of one": (["schedule.dropout=1"], "below 1"),
    "no epochs": (["schedule.epochs=0"], "schedule.epochs=0"),
    "unknown part of the network": (["+schedule.lr_mults.head=1"], "unknown parts"),
    "cost without classes": (["mode=cost", "dataset=folder"], "dataset.classes"),
    "broken override": (["patch.size=[1"], "patch.size"),
    "unknown stage of a recipe": (["+schedule.stages.bad.epochs=2"], "schedule.stages.bad is not a key"),
    "checkpoint of a count": (["mode=cost", "checkpoint=x"], "checkpoint needs mode=evaluate"),
    "misspelt experiment key": (["exprement=glyphs_when"], "did you mean experiment"),
    "no folder": (["hydra.run.dir="], "has no value"),
    "what Hydra raises": (["experiment=null", "debug=smoke"], "string or a list"),
    "a flag of Hydra's": (["--resolve"], "--cfg"),
    "missing weights": (["backbone.weights=nowhere.pth"], "backbone.weights=nowhere.pth: there is no such"),
    "missing start": (["init.from=nowhere"], "init.from=nowhere: there is no such"),
    "missing data": (["dataset=folder", "dataset.root=nowhere"], "dataset.root=nowhere is not a folder"),
    "impossible folder": (["hydra.run.dir=/proc/x"], "choose another folder"),
    "a device for a folder": (["hydra.run.dir=/dev/null"], "choose another folder"),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_before_any_process_starts(case: str, tmp_path: Path, monkeypatch, capsys) -> None:
    typed, says = COMPOSED[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("adafocus.runs.sweep.launch", lambda *_: pytest.fail("a process was started"))
    assert cli.run(typed) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and says in printed and "\n" not in printed, printed
    assert not list(tmp_path.iterdir())


def test_a_refused_command_leaves_folders_that_it_did_not_make(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    assert cli.run(["name=mine", "schedule.epochs=0"]) == cli.run(["name=other", "schedule.epochs=0"]) == 2
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]


def _weights_of_another_model(tmp_path: Path) -> list[str]:
    torch.save({"model": {"glance.layers.0.weight": torch.zeros(3)}}, tmp_path / "other.pt")
    return ["mode=evaluate", f"checkpoint={tmp_path / 'other.pt'}"]


def _pickle(tmp_path: Path) -> list[str]:
    torch.save({"model": Path("/")}, tmp_path / "object.pt")
    return ["mode=evaluate", f"checkpoint={tmp_path / 'object.pt'}"]


def _noise(tmp_path: Path) -> list[str]:
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)))
    return ["mode=evaluate", f"checkpoint={tmp_path / 'noise.pt'}"]


def _other_classes(tmp_path: Path) -> list[str]:
    from adafocus import build

    typed = ["dataset=folder", folder(tmp_path), "segments=4"]
    network = build.model(composing.compose(typed), 2)
    torch.save({"format": 1, "model": network.state_dict(), "classes": ["b", "a"]}, tmp_path / "ba.pt")
    return [*typed, "mode=evaluate", f"checkpoint={tmp_path / 'ba.pt'}"]


STARTED = {
    "checkpoint of other classes": (_other_classes, "trained on other classes: class 0 is 'b' there and 'a'"),
    "folder that is not there": (
        lambda t: ["dataset=folder", "dataset.root=/nowhere"],
        "dataset.root=/nowhere is not a folder",
    ),
    "empty folder": (lambda t: ["dataset=folder", f"dataset.root={t}"], LIST),
    "label out of range": (
        lambda t: ["dataset=folder", folder(t, "a/x.mp4 9 0\nb/y.mp4 9 7\n")],
        "line 2: label 7 is out of range",
    ),
    "unreadable row": (lambda t: ["dataset=folder", folder(t, "a/x.mp4 nine 0\n")], "line 1: cannot read"),
    "all videos missing": (
        lambda t: ["dataset=folder", folder(t, "gone.mp4 9 0\n")],
        "none of the 1 training videos exists",
    ),
    "another number of classes": (
        lambda t: ["dataset=folder", folder(t), "dataset.classes=3"],
        "2 classes found, 3 expected",
    ),
    "another number of videos": (
        lambda t: ["dataset=folder", folder(t), "dataset.expected_train=5"],
        "2 of 5 expected training videos",
    ),
    "flip pairs of unknown classes": (
        lambda t: ["dataset=folder", folder(t), "dataset.flip_pairs=[[a,c]]"],
        "unknown: ['c']",
    ),
    "batch larger than the data": (lambda t: ["dataset=folder", folder(t)], "larger than the training set of 2"),
    "no GPU": (lambda t: ["device=cuda"], "no CUDA device is visible"),
    "checkpoint that is not there": (
        lambda t: ["mode=evaluate", "checkpoint=/nowhere.pt"],
        "/nowhere.pt: there is no such run folder or file",
    ),
    "checkpoint of another model": (_weights_of_another_model, "is a checkpoint of another model"),
    "checkpoint that could run code": (_pickle, "could run code"),
    "checkpoint of noise": (_noise, "noise.pt"),
    "no ImageNet weights": (lambda t: ["backbone.weights=imagenet"], "backbone.weights=none"),
    "unknown backbone": (lambda t: ["backbone.focus=vgg"], "choose one of mobilenet_v2"),
    "glyph that does not fit": (lambda t: ["dataset.frame_size=16", "patch.size=8"], "smaller than frame_size"),
}


#: Texts of errors that are found before the run folder is made.
_EARLY = (
    "checkpoint that could run code",
    "checkpoint of noise",
    "checkpoint that is not there",
    "folder that is not there",
)


@pytest.mark.parametrize("case", STARTED)
def test_before_anything_is_trained(case: str, tmp_path: Path, monkeypatch, capfd) -> None:
    if case == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    make, says = STARTED[case]
    typed = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.run([*typed, "inline=true", "loader.workers=0"]) == 2
    printed = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(printed) == 1 and says in printed[0], printed
    if not (tmp_path / "outputs").exists():  # the error came before the folder was made
        assert case in _EARLY, printed
        return
    run_folder = next((tmp_path / "outputs").iterdir())
    assert '"failed"' in (run_folder / "status.json").read_text()
    assert not (run_folder / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["compare", "/nowhere"], "/nowhere is not a folder"),
        (["prepare", "check", "/nowhere"], "/nowhere is not a folder"),
        (["run", "patch=112"], "patch.size=112"),
    ],
)
def test_the_console_command(typed: list[str], says: str, capsys) -> None:
    assert cli.main(typed) == 2
    assert says in capsys.readouterr().err


def test_help_shows_the_usage_and_an_unknown_command_is_one_line(capsys) -> None:
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
    assert capsys.readouterr().err.count("usage: adafocus") == 2
    assert cli.main(["predic"]) == 2
    assert capsys.readouterr().err == (
        "error: adafocus predic: no such command; did you mean predict?; `adafocus --help` lists them\n"
    )


@pytest.mark.parametrize("typed", [["run", "-x"], ["predict"], ["zoo", "-z"], ["compare", "--nope", "a"], ["convert"]])
def test_a_wrong_argument_is_one_line(typed: list[str], capsys) -> None:
    assert cli.main(typed) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: adafocus {typed[0]}: ") and said.count("\n") == 1 and "--help" in said


def test_a_reader_that_closes_the_output_ends_the_command_without_a_traceback(monkeypatch, capsys) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    assert cli.main(["run", "--help"]) == cli.BROKEN_PIPE == 141
