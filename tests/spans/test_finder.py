"""Tests of `Finder`: windows share decoding and glance maps, memory is flat, and focusing everywhere is exact."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import numbered
from helpers.configs import composed

from adafocus import build, config, predict
from adafocus.cli import main
from adafocus.data.stream import Stream
from adafocus.spans.finder import Finder, Found, _Mean
from adafocus.spans.windows import WINDOWS_AT_ONCE, Grid, Reader

CLASSES = ["up", "down", "nothing"]
KINDS = {
    "adafocus_v2": ("segments=4", "patch.size=16"),
    "adafocus_v2_tsm": ("backbone=tiny_tsm", "segments=4", "patch.size=16"),
    "uni_adafocus": ("segments=4", "patch.size=16"),
    "uni_adafocus_tsm": ("backbone=tiny_tsm", "segments=4", "patch.size=16"),
    "recognizer": ("segments=4",),
    "online": ("backbone=tiny_tsm", "backbone.shift=online", "segments=4"),
}


def loaded(folder: Path, kind: str) -> predict.Predictor:
    """A predictor with random weights, and heads that are not near zero."""
    method = "recognizer" if kind == "online" else kind.removesuffix("_tsm")
    settings = composed(
        *("dataset=folder", f"dataset.root={folder}", f"method={method}", "dataset.frame_size=32", *KINDS[kind])
    )
    torch.manual_seed(0)
    model = build.model(settings, 3)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1 and ("head" in name or "steps" in name or "class" in name):
            torch.nn.init.normal_(parameter, std=0.3)
    path = folder / f"{kind}.pt"
    torch.save({"model": model.state_dict(), "config": config.to_dict(settings), "classes": CLASSES}, path)
    return predict.load(path, device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered.write(tmp_path_factory.mktemp("videos") / "long.mp4", 75)


def probabilities(finder: Finder, clip: Path) -> tuple[np.ndarray, Found]:
    """Probabilities (windows, K) as `Finder.find` computes them."""
    found, rows, maps = Found(), [], dict[int, torch.Tensor]()
    with Stream(clip) as stream, torch.no_grad():
        grid = Grid.of(finder.view, finder.glances, stream.rate, finder.window, finder.overlap)
        for windows in Reader(stream, grid, finder.view):
            rows.append(finder._answer(windows, maps, found))
    return np.concatenate(rows), found


@pytest.mark.parametrize("kind", KINDS)
def test_windows_focused_on_are_those_of_the_whole_network(tmp_path: Path, clip: Path, kind: str) -> None:
    predictor = loaded(tmp_path, kind)
    finder = Finder(predictor, window=0.6, focus_below=2.0)
    answers, found = probabilities(finder, clip)
    assert found.focused == found.windows == len(answers)
    with Stream(clip) as stream:
        grid = Grid.of(finder.view, finder.glances, stream.rate, 0.6, finder.overlap)
        frames = torch.stack([finder.view.evaluation(torch.from_numpy(p(None).copy())[None])[0, 0] for _, p in stream])
    with torch.no_grad():
        for number in (0, len(answers) - 1):
            shown = (number * grid.step + torch.from_numpy(grid.offsets)).clamp(max=max(grid_frames(grid, len(frames))))
            clips = predictor.stage.normalize(frames[shown][None])
            whole = predictor.model(clips).logits.softmax(1)[0]
            assert answers[number] == pytest.approx(whole.numpy(), abs=1e-5)
    assert finder.shares == (kind in ("adafocus_v2", "uni_adafocus"))
    shared = finder.backbone_cost * (found.windows - found.glances / 4) if finder.shares else 0
    assert -1 <= found.cost - (found.dense_cost - shared) <= 0.005 * found.dense_cost  # the glance's own head is small


def grid_frames(grid: Grid, count: int) -> list[int]:
    """The frames of a video of `count` frames that windows show."""
    return [number for number in range(count) if grid.wants()(number)]


@pytest.mark.parametrize("kind", ["adafocus_v2", "uni_adafocus_tsm"])
def test_the_glance_decides_where_to_focus(tmp_path: Path, clip: Path, kind: str, monkeypatch: Any) -> None:
    finder = Finder(loaded(tmp_path, kind), window=0.6, focus_below=0.0)
    glances, found = probabilities(finder, clip)
    assert found.focused == 0
    whole, _ = probabilities(Finder(finder.predictor, window=0.6, focus_below=2.0), clip)
    limit = float(np.median(glances.max(1)))
    looked: list[int] = []
    focus = finder.network.focus
    monkeypatch.setattr(
        finder.network, "focus", lambda frames, *a, **k: looked.append(len(frames)) or focus(frames, *a, **k)
    )
    mixed, found = probabilities(Finder(finder.predictor, window=0.6, focus_below=limit), clip)
    unsure = glances.max(1) < limit
    assert 0 < unsure.sum() < len(unsure) and sum(looked) == found.focused == unsure.sum()
    assert mixed == pytest.approx(np.where(unsure[:, None], whole, glances), abs=1e-5)
    assert found.cost < found.dense_cost


def test_frames_are_decoded_and_glanced_at_once_and_few_are_held(tmp_path: Path, monkeypatch: Any) -> None:
    """Three times as long a video needs no more memory, and three times the work."""
    finder = Finder(loaded(tmp_path, "adafocus_v2"), window=0.6, focus_below=0.0)
    seen: list[int] = []
    maps = finder.network.glance_maps
    monkeypatch.setattr(finder.network, "glance_maps", lambda frames: seen.append(frames.shape[1]) or maps(frames))
    kept: list[int] = []
    held, glances = [], []
    for seconds in (4, 12):
        path = numbered.write(tmp_path / f"{seconds}.mp4", seconds * 25)
        seen.clear()
        found = Found()
        spans = finder.find(path, found, lambda found: kept.append(found.held))
        list(spans)
        held.append(found.held)
        glances.append(found.glances)
        assert sum(seen) == found.glances == -(-seconds * 25 // 4) and found.frames == seconds * 25
    assert held[0] == held[1] <= WINDOWS_AT_ONCE + 5
    assert glances[1] == 3 * glances[0]


def test_a_moment_is_a_mean_over_the_windows_that_show_it() -> None:
    mean = _Mean(4)
    for value in (0.0, 1.0, 0.0, 0.0):
        mean.add(np.array([value]))
    assert mean.weights.tolist() == [1, 2, 2, 1]
    found = [float(mean.pop()[0]) for _ in range(4)]
    assert found == pytest.approx([0, 1 / 3, 2 / 5, 2 / 6])


def test_command(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture) -> None:
    loaded(tmp_path, "uni_adafocus_tsm")
    run = str(tmp_path / "uni_adafocus_tsm.pt")
    rules = ["--window", "0.6", "--enter", "0.34", "--leave", "0.33", "--background", "nothing"]
    for suffix in ("json", "csv", "vtt"):
        video = ["--video", str(tmp_path / "drawn.mp4")] if suffix == "vtt" else []
        out = tmp_path / f"spans.{suffix}"
        assert main(["predict", run, str(clip), "--spans", str(out), "--device", "cpu", *rules, *video]) == 0
    printed = capsys.readouterr().out
    assert "of the multiply-adds of the whole network in all of them" in printed
    told = json.loads((tmp_path / "spans.json").read_text())["videos"][0]
    rows = list(csv.DictReader((tmp_path / "spans.csv").open()))
    assert told["spans"] and {span["label"] for span in told["spans"]} <= {"up", "down"}
    assert [float(row["start_seconds"]) for row in rows] == [span["start"] for span in told["spans"]]
    assert told["spans"][-1]["end"] <= 75 / 25 + 0.01 and told["frames"] == 75
    subtitles = (tmp_path / "spans.vtt").read_text()
    assert subtitles.startswith("WEBVTT\n\n00:00:0") and subtitles.count("-->") == len(rows)
    with Stream(tmp_path / "drawn.mp4") as stream:
        assert sum(1 for _ in stream) == 75
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:100])
    both = [str(broken), str(clip)]
    assert main(["predict", run, *both, "--spans", str(tmp_path / "spans.csv"), "--device", "cpu", *rules]) == 1
    rows = list(csv.DictReader((tmp_path / "spans.csv").open()))
    assert "broken.mp4" in rows[0]["error"] and rows[-1]["label"] in CLASSES


def test_command_online(tmp_path: Path, clip: Path) -> None:
    loaded(tmp_path, "online")
    out, drawn = tmp_path / "spans.json", tmp_path / "drawn.mp4"
    command = ["predict", str(tmp_path / "online.pt"), str(clip), "--online", "--every", "5", "--spans", str(out)]
    assert main([*command, "--enter", "0.3", "--leave", "0.2", "--video", str(drawn), "--device", "cpu"]) == 0
    told = json.loads(out.read_text())["videos"][0]
    assert told["frames"] == 15 and told["spans"]
    with Stream(drawn) as stream:
        assert sum(1 for _ in stream) == 15 and stream.rate == 5


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--window", "1"], "--window needs --spans FILE"),
        (["--spans", "x.txt"], "--spans x.txt: choose a name that ends in .json, .csv, .vtt"),
        (["--spans", "x.csv", "--draw", "x.png"], "--draw is for the label of a whole video"),
        (["--spans", "x.csv", "--background", "none"], "'none' is no class of this network"),
        (["--spans", "x.csv", "--online", "--window", "1"], "--window is for windows"),
        (["--spans", "x.csv", "--leave", "0.9"], "must satisfy 0 < leave <= enter <= 1"),
        (["--spans", "x.csv", "--overlap", "0"], "--overlap 0 is too small"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, clip: Path, monkeypatch: Any, capsys: pytest.CaptureFixture, typed: list[str], message: str
) -> None:
    loaded(tmp_path, "recognizer")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "recognizer.pt", str(clip), "--device", "cpu", *typed]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
