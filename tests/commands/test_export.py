"""Tests of `adafocus export`: the exported programs, run without this package, give the logits of the network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered, runs
from helpers.configs import composed

from adafocus import build, cli, config, predict
from adafocus.commands.export import export
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.data.video import open_video

ROOT = Path(__file__).resolve().parents[2]
FORMS = {
    "adafocus_v1": ("method=adafocus_v1",),
    "adafocus_v1_tsm": ("method=adafocus_v1", "backbone=tiny_tsm", "segments.focus=6"),
    "adafocus_v2": ("method=adafocus_v2",),
    "adafocus_v2_tsm": ("method=adafocus_v2", "backbone=tiny_tsm", "segments.focus=6"),
    "adafocus_v2_heatmap": ("method=adafocus_v2", "policy=heatmap"),
    "adafocus_v2_tsm_two": (
        "method=adafocus_v2",
        "backbone=tiny_tsm",
        "segments.focus=6",
        "policy=two",
        "policy.apart=1",
    ),
    "uni_adafocus": ("method=uni_adafocus", "segments.focus=3"),
    "uni_adafocus_tsm": (
        "method=uni_adafocus",
        "segments.focus=3",
        "backbone=tiny_tsm",
        "method.remove_background=true",
    ),
    "recognizer": ("method=recognizer", "backbone=tiny_tsm"),
}


def stored(tmp_path: Path, *typed: str) -> tuple[predict.Predictor, config.Config]:
    """A predictor with random weights; small BatchNorm variances make the logits of different clips differ."""
    settings = composed("dataset=glyphs", "dataset.val_videos=6", *typed)
    torch.manual_seed(3)
    model = build.model(settings, 10)
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_var.uniform_(0.01, 0.1)
    classes = [f"glyph {number}" for number in range(10)]
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": classes}
    torch.save(content, tmp_path / "last.pt")
    return predict.load(tmp_path / "last.pt", device="cpu"), settings


def example():
    spec = importlib.util.spec_from_file_location("exported", ROOT / "examples/exported.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", FORMS)
def test_joined_programs_answer_alike(tmp_path: Path, form: str) -> None:
    predictor, settings = stored(tmp_path, *FORMS[form])
    described = export(predictor, tmp_path / "out")
    data = build.data(settings)
    batch = next(iter(Loader(data.test, EvaluationOrder(6, 6))))
    main = predictor.stage.variants[0]
    expected = predictor.stage.evaluate(batch, (main,))[main]
    whole = predictor.normalize(torch.stack([data.test[0, i].frames for i in range(6)]))
    sets, first = {}, 0
    for name, entry in described["frames"].items():
        if "of" not in entry and name != "candidates":
            sets[name] = whole[:, first : first + entry["count"]]
            first += entry["count"]
    if "candidates" in described["frames"]:
        sets["candidates"] = whole[:, first:]
    values = example().join(tmp_path / "out", sets)
    torch.testing.assert_close(values["logits"], expected.logits, rtol=1e-4, atol=1e-4)
    assert values["logits"].argmax(1).tolist() == expected.logits.argmax(1).tolist()
    assert expected.logits.std(0).max() > 0  # the logits of the clips differ
    if "uni" in form:
        assert torch.equal(values["chosen"], expected.frames)
    one = {name: frames[:1] for name, frames in sets.items()}
    torch.testing.assert_close(
        example().join(tmp_path / "out", one)["logits"], expected.logits[:1], rtol=1e-4, atol=1e-4
    )


def test_the_example_needs_nothing_of_ours() -> None:
    assert "adafocus" not in [
        word
        for line in (ROOT / "examples/exported.py").read_text().splitlines()
        if "import" in line
        for word in line.split()
    ]


def of_videos(tmp_path: Path, *typed: str) -> predict.Predictor:
    """A predictor for video files with random weights; small BatchNorm variances make its logits depend on single
    pixels."""
    fixed = ("dataset=folder", "dataset.root=.", "dataset.frame_size=48", "dataset.decode_short_side=56")
    settings = composed(*fixed, *typed)
    torch.manual_seed(3)
    model = build.model(settings, 10)
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_var.uniform_(0.01, 0.1)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": list("abcdefghij")}
    torch.save(content, tmp_path / "last.pt")
    return predict.load(tmp_path / "last.pt", device="cpu")


FITS = {
    "stretch": ("method=uni_adafocus", "patch.size=32", "patch.smallest=16", "segments.glance=2", "segments.focus=3"),
    "crop": ("method=recognizer", "segments=4", "dataset.fit=crop"),
    "short": ("method=recognizer", "segments.glance=40", "dataset.fit=crop", "dataset.short_side=52"),
}


@pytest.mark.parametrize("fit", FITS)
def test_the_example_makes_the_pixels_of_the_package(tmp_path: Path, fit: str) -> None:
    predictor = of_videos(tmp_path, "dataset.reader=pyav", *FITS[fit])
    clip = numbered.write(tmp_path / "clip.mp4", 30)
    described = export(predictor, tmp_path / "out")
    decoded = example().decode(str(clip), described["input"]["decode_short_side"])
    with open_video(clip, "pyav") as video:
        assert np.array_equal(decoded, video.read(range(30), predictor.view().decode_short_side))
    ours = predictor.normalize(predictor.view().evaluation(torch.from_numpy(decoded)))[0]
    torch.testing.assert_close(example().preprocess(decoded, described), ours, rtol=0, atol=1e-5)
    values, _ = example().scores(tmp_path / "out", str(clip))
    torch.testing.assert_close(values["logits"][0], torch.tensor(predictor(clip).logits), rtol=1e-4, atol=1e-3)


def test_the_example_answers_as_the_package_on_a_real_clip(tmp_path: Path, shared: Path) -> None:
    """With PyAV the logits are those of the package; the faster reader differs by less than one gray level per pixel on
    average."""
    clip = min((shared / "data/yoga").rglob("*.mp4"), key=lambda path: path.stat().st_size)
    pixels = ("dataset.frame_size=96", "dataset.decode_short_side=112", "dataset.reader=pyav")
    predictor = of_videos(tmp_path, *pixels, *FITS["stretch"])
    described = export(predictor, tmp_path / "out")
    values, _ = example().scores(tmp_path / "out", str(clip))
    logits = torch.tensor(predictor(clip).logits)
    assert (values["logits"][0] - logits).abs().max() < 1e-3 * logits.std() and logits.std() > 0.1
    decoded = example().decode(str(clip), described["input"]["decode_short_side"])
    with open_video(clip) as video:
        fast = video.read(range(0, video.num_frames, 7), 112).astype(int)
    assert np.abs(fast - decoded[::7]).mean() < 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stored(tmp_path, *FORMS["recognizer"])
    assert cli.main(["export", str(tmp_path / "last.pt"), "--out", "/proc/x"]) == 2
    printed = capsys.readouterr().err
    assert "--out /proc/x cannot be created" in printed and printed.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["adafocus_v2", "uni_adafocus", "uni_adafocus_tsm", "recognizer"])
def test_onnx_programs_answer_alike(tmp_path: Path, form: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    predictor, _ = stored(tmp_path, *FORMS[form])
    described = export(predictor, tmp_path / "out", onnx=True)
    torch.manual_seed(0)
    known: dict[str, torch.Tensor] = {}
    for program in described["programs"]:
        assert "onnx" in program, program.get("onnx_error")
        session = runtime.InferenceSession(tmp_path / "out" / program["onnx"])
        for place in session.get_inputs():
            shape = [3 if isinstance(size, str) else size for size in place.shape]
            known.setdefault(place.name, torch.randn(shape))
        inputs = [known[name] for name in program["inputs"]]
        with torch.no_grad():
            outputs = torch.export.load(tmp_path / "out" / program["file"]).module()(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = session.run(None, {name: known[name].numpy() for name in program["inputs"]})
        for ours, theirs in zip(outputs, found, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-3, atol=1e-3)
        known |= zip(program["outputs"], outputs, strict=True)


@pytest.mark.slow
def test_the_command_and_the_example(tmp_path: Path) -> None:
    stored(tmp_path, *FORMS["uni_adafocus"])
    assert cli.main(["export", str(tmp_path / "last.pt"), "--out", str(tmp_path / "out")]) == 0
    numbered.write(tmp_path / "clip.mp4", 30)
    command = [sys.executable, str(ROOT / "examples/exported.py"), str(tmp_path / "out"), str(tmp_path / "clip.mp4")]
    text = subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True).stdout
    assert text.count("%") == 5 and "looked at candidates [" in text
