"""Exported programs, joined without our classes, say the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import torch
from helpers.configs import composed

from adafocus import build, cli, config, predict
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.tools.export import export

ROOT = Path(__file__).resolve().parents[1]
FORMS = {
    "adafocus_v1": ("method=adafocus_v1",),
    "adafocus_v1_tsm": ("method=adafocus_v1", "backbone=tiny_tsm", "segments.focus=6"),
    "adafocus_v2": ("method=adafocus_v2",),
    "adafocus_v2_tsm": ("method=adafocus_v2", "backbone=tiny_tsm", "segments.focus=6"),
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
    """A predictor of a checkpoint that was never trained but has seen something."""
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
    assert expected.logits.std(0).max() > 0  # the clips differ
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
    import numbered

    stored(tmp_path, *FORMS["uni_adafocus"])
    assert cli.main(["export", str(tmp_path / "last.pt"), "--out", str(tmp_path / "out")]) == 0
    numbered.write(tmp_path / "clip.mp4", 30)
    command = [sys.executable, str(ROOT / "examples/exported.py"), str(tmp_path / "out"), str(tmp_path / "clip.mp4")]
    text = subprocess.run(command, env=runs.environment(), capture_output=True, text=True, check=True).stdout
    assert text.count("%") == 5 and "looked at candidates [" in text
