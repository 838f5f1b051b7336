"""Tests of `adafocus predict`: predictions equal those of evaluation; streams, published checkpoints and errors."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered
from helpers.configs import composed
from PIL import Image

from adafocus import build, config, predict
from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.core.outputs import table
from adafocus.core.variants import WHOLE_FRAMES
from adafocus.data.annotations import Record
from adafocus.data.dataset import EVALUATION, VideoClips, collate
from adafocus.data.folders import find_videos
from adafocus.data.stream import stream_frames
from adafocus.data.video import VideoError

CLASSES = ["left", "right", "up"]


def saved(folder: Path, *typed: str) -> Path:
    """Writes a checkpoint in the layout of a run; returns its path."""
    settings = composed(
        "dataset=folder",
        f"dataset.root={folder}",
        "method=recognizer",
        "segments=4",
        "dataset.frame_size=32",
        "dataset.decode_short_side=null",
        *typed,
    )
    torch.manual_seed(0)
    model = build.model(settings, 3)
    torch.nn.init.normal_(model.head.weight)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": CLASSES}
    torch.save(content, folder / "last.pt")
    return folder / "last.pt"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return numbered.write(tmp_path / "clip.mp4", 25)


@pytest.mark.parametrize(
    "typed", [(), ("protocol=tsm_twice_6view", "dataset.fit=crop", "protocol.average=probabilities")]
)
def test_predictions_are_those_of_evaluation(tmp_path: Path, clip: Path, typed: tuple[str, ...]) -> None:
    path = saved(tmp_path, *typed)
    predictor = predict.load(path, device="cpu")
    found = predictor.predict(clip)
    item = VideoClips([Record(clip.name, (0,))], clip.parent, predictor.view(), seed=0)[EVALUATION, 0]
    views = item.frames if item.frames.ndim == 5 else item.frames[None]
    assert len(views) == (6 if typed else 1)
    with torch.no_grad():
        logits = torch.stack(
            [
                predictor.stage.evaluate(collate([item.__class__(v, item.labels, 0, -1, [])]), (WHOLE_FRAMES,))[
                    WHOLE_FRAMES
                ].logits[0]
                for v in views
            ]
        )
    expected = logits.softmax(1).mean(0) if typed else logits.mean(0).softmax(0)
    assert found.labels[0] == CLASSES[int(expected.argmax())]
    assert found.scores == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-5)
    assert found.protocol.startswith("tsm_twice_6view: " if typed else "single: ")


def test_console(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture) -> None:
    path = saved(tmp_path)
    (tmp_path / "page.mp4").write_text("<html>")
    out = tmp_path / "found.json"
    assert main(["predict", str(path), str(clip), str(tmp_path / "page.mp4"), "--json", str(out), "--top", "2"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("%") == 2 and "page.mp4" in printed.err and printed.err.count("\n") == 1
    good, bad = json.loads(out.read_text())["videos"]
    assert set(good["labels"]) == set(CLASSES) and "error" in bad


def test_streams(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture) -> None:
    path = saved(tmp_path, "backbone=tiny_tsm", "backbone.shift=online")
    drawn, out = tmp_path / "drawn.mp4", tmp_path / "found.json"
    assert (
        main(["predict", str(path), str(clip), "--online", "--every", "2", "--draw", str(drawn), "--json", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    whole = json.loads(out.read_text())
    moments = whole["videos"][0]["moments"]
    assert whole["classes"] == CLASSES and all(sum(m["scores"]) == pytest.approx(1, abs=1e-3) for m in moments)
    assert len(moments) == 13 and "13 frames; latency" in printed
    assert [moment["seconds"] for moment in moments[:3]] == pytest.approx([0.0, 0.08, 0.16])
    assert all(moment["latency"] > 0 for moment in moments)
    assert sum(1 for _ in stream_frames(drawn)) == 13
    assert numbered.numbers(next(iter(stream_frames(clip)))[1][None]) == [0]


def test_a_stream_says_what_the_clip_form_says(tmp_path: Path, clip: Path) -> None:
    """The logits of a stream equal those of one long clip of the same frames."""
    path = saved(tmp_path, "backbone=tiny_tsm", "backbone.shift=online")
    predictor = predict.load(path, device="cpu")
    labels = [moment.label for moment in predictor.stream(clip, every=1)]
    frames = torch.stack([torch.from_numpy(frame.copy()) for _, frame in stream_frames(clip)])
    view = predictor.normalize(predictor.view().evaluation(frames))
    from adafocus.methods.recognizer.online import Smoothing

    for shift in (m for m in predictor.model.modules() if hasattr(m, "past")):
        shift.segments = len(frames)
    smooth = Smoothing()
    with torch.no_grad():
        scores = predictor.model(view).per_frame[0]
    assert labels == [CLASSES[smooth(frame)] for frame in scores]


def test_an_official_streaming_file_needs_no_configuration(tmp_path: Path, clip: Path) -> None:
    settings = composed("experiment=tsm_jester_mbv2_online_8f", "dataset.root=.", "backbone.weights=none")
    model = build.seeded_model(settings, 27, weights=False)
    from helpers.official import official_key

    state = {}
    for key, value in model.state_dict().items():
        name = official_key(key, "mobilenet").removeprefix("module.").removeprefix("base_model.")
        state[name.replace(".net.", ".").replace("new_fc.", "classifier.")] = value
    torch.save(state, tmp_path / "mobilenetv2_jester_online.pth.tar")
    assert (
        main(["predict", str(tmp_path / "mobilenetv2_jester_online.pth.tar"), str(clip), "--online", "--every", "12"])
        == 0
    )


def test_what_goes_wrong_is_one_line(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture) -> None:
    path = saved(tmp_path)
    cases = {
        ("predict", str(path), str(clip), "--online"): "backbone.shift=online",
        ("predict", str(path)): "no video",
        ("predict", str(path), "experiment=tsm_sthv2_8f"): "no video",
        ("predict", str(tmp_path / "gone.pt"), str(clip)): "does not exist",
        ("predict", str(path), str(clip), "--every", "0"): "--every 0",
    }
    for typed, says in cases.items():
        assert main(list(typed)) == 2
        printed = capsys.readouterr().err
        assert says in printed and printed.count("\n") == 1, printed
    torch.save({"state_dict": {"base_model.conv1.weight": torch.zeros(1)}}, tmp_path / "official.pth")
    assert main(["predict", str(tmp_path / "official.pth"), str(clip)]) == 2
    assert "no classifier" in capsys.readouterr().err
    with pytest.raises(VideoError, match="no such file"):
        next(stream_frames(tmp_path / "gone.mp4"))
    with pytest.raises(UserError, match="has no checkpoint"):
        run = tmp_path / "run"
        run.mkdir()
        (run / "config.json").write_text(json.dumps(config.to_dict(composed("dataset=folder", "dataset.root=/x"))))
        predict.load(run)


UNI = ("method=uni_adafocus", "segments.glance=2", "segments.focus=3", "patch.size=24", "patch.smallest=12")


def looking(tmp_path: Path, *typed: str) -> predict.Predictor:
    """A predictor whose network crops patches, with random weights whose logits differ between clips."""
    settings = composed(
        "dataset=folder", f"dataset.root={tmp_path}", "dataset.frame_size=32", "dataset.decode_short_side=null", *typed
    )
    torch.manual_seed(1)
    model = build.model(settings, 3)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": CLASSES}
    torch.save(content, tmp_path / "last.pt")
    import adafocus

    return adafocus.load(tmp_path / "last.pt", device="cpu")


FORMS = {
    "uni": UNI,
    "uni_tsm": (*UNI, "backbone=tiny_tsm", "dataset.fit=crop"),
    "v2": ("method=adafocus_v2", "segments.glance=4", "patch.size=24", "dataset.fit=crop"),
    "v2_tsm": ("method=adafocus_v2", "backbone=tiny_tsm", "segments.glance=4", "segments.focus=3", "patch.size=24"),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_arrays_tensors_and_batches_say_the_same(tmp_path: Path, clip: Path, form: str) -> None:
    predictor = looking(tmp_path, *FORMS[form])
    other = numbered.write(tmp_path / "other.mp4", 41)
    frames = np.stack([frame for _, frame in stream_frames(clip)])
    one = predictor(clip)
    (tmp_path / "page.mp4").write_text("<html>")
    many = predictor([str(clip), other, frames, torch.from_numpy(frames), tmp_path / "page.mp4"])
    assert [item.error is None for item in many] == [True] * 4 + [False] and "page.mp4" in many[4].error
    for item in (many[0], many[2], many[3]):
        assert item.logits == pytest.approx(one.logits, abs=1e-5) and item.labels == one.labels
        assert item.frames == one.frames and np.allclose(item.boxes, one.boxes, atol=1e-3)
    assert many[1].logits != pytest.approx(one.logits, abs=1e-5)
    assert one.cost > 1e5 and one.frames == sorted(one.frames) and len(one.boxes) == len(one.frames)
    for x1, y1, x2, y2 in one.boxes:
        assert -1e-3 <= x1 < x2 <= 96.01 and -1e-3 <= y1 < y2 <= 64.01
    evaluated = evaluation(predictor, clip)
    assert one.logits == pytest.approx(evaluated.tolist(), abs=1e-5)


def evaluation(predictor: predict.Predictor, clip: Path) -> torch.Tensor:
    """The logits of one video as `adafocus.evaluation.evaluate.evaluate` computes them."""
    from adafocus.data.loader import EvaluationOrder, Loader
    from adafocus.evaluation.evaluate import evaluate
    from adafocus.processes.distributed import World

    clips = VideoClips([Record(clip.name, (0,))], clip.parent, predictor.view(), seed=0)
    main = predictor.stage.variants[0]
    world = World(0, 1, torch.device("cpu"))
    return evaluate(predictor.stage, Loader(clips, EvaluationOrder(1, 1)), 1, world, variants=(main,)).logits[main][0]


def test_boxes_lie_on_what_was_cut(tmp_path: Path) -> None:
    """Patches that are cut out of the video at the predicted boxes and frames equal the input of the focus network."""
    predictor = looking(tmp_path, "method=adafocus_v2", "segments.glance=4", "patch.size=16", "dataset.fit=crop")
    settings = predictor.settings
    rng = np.random.default_rng(0)
    side = predictor.view().short_side
    # Its short side is not resized, only cropped.
    frames = rng.integers(0, 255, (9, side, side + 12, 3), dtype=np.uint8)
    seen: list[torch.Tensor] = []
    predictor.model.focus_net.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    found = predictor(frames)
    patches = seen[0][predictor.model.order.argsort()]
    normalized = predictor.normalize(torch.from_numpy(frames)[None])[0]
    for patch, frame, (x1, y1, x2, y2) in zip(patches, found.frames, found.boxes, strict=True):
        assert y2 - y1 == pytest.approx(settings.patch.size) and x2 - x1 == pytest.approx(settings.patch.size)
        y, x = np.arange(16) + y1, np.arange(16) + x1
        rows, columns = np.meshgrid(y, x, indexing="ij")
        grid = np.stack([2 * (columns + 0.5) / (side + 12) - 1, 2 * (rows + 0.5) / side - 1], -1)
        expected = torch.nn.functional.grid_sample(
            normalized[frame][None], torch.from_numpy(grid).float()[None], align_corners=False
        )[0]
        torch.testing.assert_close(patch, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("suffix", ["png", "gif", "mp4"])
def test_pictures_of_where_it_looked(tmp_path: Path, clip: Path, suffix: str, capsys: pytest.CaptureFixture) -> None:
    looking(tmp_path, *UNI)
    drawn, out = tmp_path / f"looked.{suffix}", tmp_path / "found.json"
    assert main(["predict", str(tmp_path / "last.pt"), str(clip), "--draw", str(drawn), "--json", str(out)]) == 0
    entry = json.loads(out.read_text())["videos"][0]
    assert len(entry["frames"]) == len(entry["boxes"]) == 3 and entry["cost"] > 0 and entry["drawn"] == str(drawn)
    assert "where it looked" in capsys.readouterr().out
    if suffix == "mp4":
        assert sum(1 for _ in stream_frames(drawn)) == 3
        return
    with Image.open(drawn) as image:
        assert getattr(image, "n_frames", 1) == (3 if suffix == "gif" else 1)
        yellow = (np.asarray(image.convert("RGB")).astype(int) - [255, 213, 0]).__abs__().sum(-1) < 60
        assert yellow.sum() > 100


def test_arrays_that_are_no_videos(tmp_path: Path) -> None:
    predictor = looking(tmp_path, *UNI)
    with pytest.raises(UserError, match=r"a video is uint8 \(T, H, W, 3\)"):
        predictor(np.zeros((4, 8, 8, 3), np.float32))
    assert predictor([]) == []


def test_tables_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A table of a folder has the videos of all subfolders in the order of their paths. It covers files of the same
    stem, a broken file, a name that a spreadsheet would run as a formula, and boxes."""
    looking(tmp_path, *UNI)
    videos = tmp_path / "videos"
    for name in ("b/clip.mp4", "a/clip.mp4", "a/=1+1.MP4", "a/.hidden.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        numbered.write(videos / name, 12)
    (videos / "b/page.mp4").write_text("<html>")
    (videos / "b/notes.txt").write_text("no video")
    typed = ["predict", str(tmp_path / "last.pt"), str(videos), "--device", "cpu", "--top", "9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(videos / "a")
        csv_file = tmp_path / "t.csv"
        assert main([*typed[:2], ".", str(videos / "b"), "--table", str(csv_file), "--top", "2"]) == 1
    printed = capsys.readouterr()
    assert "4 videos, 1 with an error" in printed.out and printed.err.count("\n") == 1
    rows = list(csv.DictReader(csv_file.open(newline="")))
    assert [row["path"] for row in rows] == ["./=1+1.MP4", "./clip.mp4", f"{videos}/b/clip.mp4", f"{videos}/b/page.mp4"]
    first, last = rows[0], rows[-1]
    names = "path label score label_2 score_2 exit cost_multiply_adds seconds frames x1 y1 x2 y2 error"
    assert list(first) == names.split() and first["exit"] == "" and int(first["cost_multiply_adds"]) > 1e5
    assert len(json.loads(first["frames"])) == len(json.loads(first["x2"])) == 3
    assert "page.mp4" in last["error"] and last["label"] == ""
    drawn = tmp_path / "s.png"
    assert main([*typed, "--table", str(tmp_path / "t.jsonl"), "--draw", str(drawn)]) == 1
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and lines[0]["label_3"] in CLASSES and "label_4" not in lines[0]
    assert lines[1]["x1"] == json.loads(rows[1]["x1"]) and lines[1]["frames"] == json.loads(rows[1]["frames"])
    assert sorted(path.name for path in tmp_path.glob("s_*")) == ["s_a_1+1.png", "s_a_clip.png", "s_b_clip.png"]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert main([*typed, "--table", str(tmp_path / "t.parquet")]) == 1
    read = pyarrow.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["path"] for row in read] == [line["path"] for line in lines] and read[0]["x1"] == lines[0]["x1"]


def test_rows_are_there_as_soon_as_they_are_known(tmp_path: Path) -> None:
    predictor = looking(tmp_path, *UNI)
    clips = [numbered.write(tmp_path / f"{number}.mp4", 12) for number in range(3)]
    predictor.settings.evaluate.batch_size = 1
    rows = table("--table", tmp_path / "t.csv", {"path": str})
    for number, prediction in enumerate(predictor.each(clips), 1):
        rows.write({"path": prediction.video})
        assert len((tmp_path / "t.csv").read_text().splitlines()) == number + 1
    rows.close()


def test_cells_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    rows = table("--table", tmp_path / "t.csv", {"path": str, "x": list, "score": float})
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain", "a=b", "caf\udce9"]
    for text in texts:
        rows.write({"path": text, "x": [-1.5], "score": -0.5})
    rows.close()
    read = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert [row["path"] for row in read] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain", "a=b", "caf\\udce9"]
    assert read[0]["x"] == "[-1.5]" and read[0]["score"] == "-0.5"


def test_mistakes_are_found_before_the_work(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(saved(tmp_path, "protocol=tsm_twice_6view", "dataset.fit=crop"))
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(predict.Predictor, "_of", lambda *_: pytest.fail("the work began"))
    cases = {
        (str(clip), "--top", "0"): "--top 0 must be at least 1",
        (str(clip), "--top", "-5"): "--top -5",
        (str(clip), "--json", "/nowhere/x.json"): "--json /nowhere/x.json cannot be written",
        (str(clip), "--table", "/nowhere/x.csv"): "--table /nowhere/x.csv cannot be written",
        (str(clip), "--table", str(tmp_path / "x.txt")): ".csv, .jsonl, .parquet",
        (str(clip), "--draw", str(tmp_path / "x.bmp")): "--draw",
        (str(clip), "--draw", str(tmp_path / "x.png")): "averaged",
        (str(clip), "--online", "--table", str(tmp_path / "x.csv")): "--table is for whole videos",
        (str(clip), "protocol=single"): "leave out protocol=single",
        (str(tmp_path / "empty"),): "has no video",
    }
    for typed, says in cases.items():
        assert main(["predict", path, *typed]) == 2, typed
        printed = capsys.readouterr().err
        assert says in printed and printed.count("\n") == 1, printed
    assert main(["convert", path, "/proc/x.safetensors"]) == 2
    assert "/proc/x.safetensors cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
    looking(tmp_path, *UNI)
    assert main(["predict", path, str(clip), "--online"]) == 2
    assert "method=recognizer with backbone.shift=online" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["predict", path, str(clip), "--table", str(tmp_path / "x.parquet")]) == 2
    assert 'pip install "adafocus[parquet]"' in capsys.readouterr().err


def test_folders_of_frames_are_videos_and_others_are_searched(tmp_path: Path) -> None:
    frames = tmp_path / "set/one"
    frames.mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(frames / f"image_{number:05d}.jpg")
    (tmp_path / "set/two.webm").write_text("")
    assert find_videos([str(frames)], predict.FRAMES) == [str(frames)]
    assert find_videos([str(tmp_path)] * 2, predict.FRAMES) == [str(frames), str(tmp_path / "set/two.webm")]
    assert find_videos([str(tmp_path)], "flow_{axis}_{:05d}.jpg") == [str(tmp_path / "set/two.webm")]


def test_a_small_recipe_without_background_streams(tmp_path: Path, clip: Path) -> None:
    """With background removal, which subtracts the mean of the frames so far, a stream gives the logits of the clip."""
    path = saved(tmp_path, "backbone=tiny_tsm", "backbone.shift=online", "method.remove_background=true")
    predictor = predict.load(path, device="cpu")
    moments = list(predictor.stream(clip, every=7))
    assert len(moments) == 4 == predictor.model.segments
    frames = np.stack([moment.frame for moment in moments])
    with torch.no_grad():
        clip_form = predictor.model(predictor.normalize(predictor.view().evaluation(torch.from_numpy(frames))))
    for number, moment in enumerate(moments):
        expected = clip_form.per_frame[0, : number + 1].mean(0).softmax(0)
        assert moment.scores == pytest.approx(expected.tolist(), abs=1e-5)
