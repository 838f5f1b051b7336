"""Tests of predictions for many videos: rows equal those of `Predictor`, and kills lose nothing and repeat nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from helpers import numbered
from helpers.configs import composed
from helpers.http_server import serve

from adafocus import batch, build, config, predict
from adafocus.batch import engines, parts
from adafocus.batch.parts import PartTable
from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.core.prediction import columns

dataset = pytest.importorskip("pyarrow.dataset", reason='pip install "adafocus[parquet]"')
UNI = ("method=uni_adafocus", "segments.glance=2", "segments.focus=3", "patch.size=24", "patch.smallest=12")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, videos of which one is broken, and thresholds for early exit."""
    folder = tmp_path_factory.mktemp("run")
    settings = composed("dataset=folder", f"dataset.root={folder}", "dataset.frame_size=32", *UNI)
    torch.manual_seed(1)
    model = build.model(settings, 3)
    content = {"model": model.state_dict(), "config": config.to_dict(settings), "classes": ["left", "right", "up"]}
    torch.save(content, folder / "last.pt")
    (folder / "videos/sub").mkdir(parents=True)
    for number in range(20):
        path = folder / f"videos/{'sub/' * (number % 2)}{number:02d}.mp4"
        path.write_text("<html>") if number == 7 else numbered.write(path, 12 + number)
    return folder


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a table by id, each of which is there once."""
    found = dataset.dataset(folder).to_table().to_pylist()
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def command(run: Path, source: object, out: Path, *typed: str) -> list[str]:
    return ["predict", str(run / "last.pt"), str(source), "--table", str(out), "--device", "cpu", *typed]


def equal(row: dict[str, Any], prediction: predict.Prediction) -> None:
    """Asserts that a row has the bits of a prediction."""
    assert row["error"] is None and prediction.error is None
    ranked = ("", "_2", "_3")
    assert [row[f"label{end}"] for end in ranked] == prediction.labels
    assert [row[f"score{end}"] for end in ranked] == prediction.scores
    assert row["frames"] == prediction.frames and row["cost_multiply_adds"] == prediction.cost
    assert row["exit"] == prediction.exit and row["y2"] == [box.y2 for box in prediction.boxes]


def job(typed: list[str], said: Path) -> int:
    """Starts a command in a forked process, which needs no imports; returns its id."""
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)  # the threads of this process are not forked
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (pytest replaces it)
        status = main(typed)
        sys.stdout.flush()
        os._exit(status)
    return child


def test_kills_lose_nothing_and_repeat_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and the whole job get SIGKILL; the repeated command goes on, and the rows have Predictor's bits."""
    out, once, said = tmp_path / "out", tmp_path / "once", tmp_path / "said"
    work = engines._Work.__call__

    def slow(self: engines._Work, chunk: engines.Chunk) -> list[engines.Row]:
        time.sleep(0.05)
        if len(list(out.glob("part-*"))) > 2 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)  # a worker dies
        return work(self, chunk)

    monkeypatch.setattr(engines._Work, "__call__", slow)
    monkeypatch.setattr(parts, "SHORTEST", 0.0)  # parts of few rows
    monkeypatch.setattr(parts, "SHARE", 0.0)
    rng, kills = random.Random(0), 0
    while True:
        had = len(list(out.glob("part-*")))
        child = job(command(run, run / "videos", out, "--workers", "2"), said)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if kills < 2 and len(list(out.glob("part-*"))) >= had + 3:
                time.sleep(rng.random() / 10)
                os.kill(child, signal.SIGKILL)
                kills += 1
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.01)
        if not os.WIFSIGNALED(ended[1]):
            break
    assert os.WEXITSTATUS(ended[1]) == 1 and kills == 2 and once.exists()
    assert "20 videos" in said.read_text() and "1 with an error" in said.read_text()
    found = {row["path"]: row for row in rows(out).values()}
    assert len(found) == 20
    predictor = predict.load(run / "last.pt", device="cpu")
    paths = sorted(found)
    for path, prediction in zip(paths, predictor(paths), strict=True):
        if "07.mp4" in path:
            assert "not a readable video" in found[path]["error"] and found[path]["label"] is None
        else:
            equal(found[path], prediction)
            assert prediction.logits == predictor(path).logits  # whatever is beside it


def test_paths_and_addresses_of_tables(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    videos = run / "videos"
    fsspec.filesystem("memory").pipe("/clips/a.mp4", (videos / "02.mp4").read_bytes())
    odd = ["../secret.mp4", "/etc/passwd", "file:///etc/passwd", "x::memory://clips/a.mp4", "", "a\nb.mp4", "n" * 300]
    import pyarrow
    from pyarrow import parquet

    with serve(videos) as site:
        good = ["00.mp4", str(videos / "02.mp4"), "memory://clips/a.mp4", f"{site.address}/04.mp4", "./00.mp4"]
        table = pyarrow.table({"clip": [*good, *odd, None]})
        parquet.write_table(table, videos / "t.parquet")
        typed = command(run, videos / "t.parquet", tmp_path / "out", "--column", "clip", "--workers", "1")
        assert main(typed) == 1
    printed = capsys.readouterr().out
    assert "12 videos (12 of them now), 8 with an error; 1 rows name a video again" in printed
    found = {row["path"]: row for row in rows(tmp_path / "out").values()}
    assert sorted(path for path, row in found.items() if row["error"] is None) == sorted(good[:4])
    predictor = predict.load(run / "last.pt", device="cpu")
    for path, name in zip(good, ("00", "02", "02", "04"), strict=False):
        equal(found[path], predictor(videos / f"{name}.mp4"))
    assert "leads out" in found["../secret.mp4"]["error"] and "leads out" in found["/etc/passwd"]["error"]
    assert "only addresses of" in found["file:///etc/passwd"]["error"]
    # A list from elsewhere needs a root; ids of a table are kept, and only new rows are predicted.
    (tmp_path / "t.csv").write_text(f"id,path\nfirst,{videos}/00.mp4\n")
    assert main(command(run, tmp_path / "t.csv", tmp_path / "ids")) == 2
    assert "--root" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text(f"id,path\nfirst,{videos}/00.mp4\nsecond,02.mp4\n")
    rooted = command(run, tmp_path / "t.csv", tmp_path / "ids", "--root", str(videos), "--workers", "1")
    assert main(rooted) == 0 and sorted(rows(tmp_path / "ids")) == ["first", "second"]
    with (tmp_path / "t.csv").open("a") as file:
        file.write("third,04.mp4\n")
    assert main(rooted) == 0 and "3 videos (1 of them now)" in capsys.readouterr().out


def test_early_exit_has_the_bits_of_the_predictor(run: Path, tmp_path: Path) -> None:
    paths = [str(run / f"videos/{name}.mp4") for name in ("00", "02", "04", "06")]
    report: dict[str, Any] = {"chunk": 1, "contract": None}

    def load() -> predict.Predictor:
        return predict.load(run / "last.pt", device="cpu", batch_size=1, early_exit=tmp_path, budget=2.0)

    def exits(*thresholds: float) -> predict.Predictor:
        report["rows"] = [{"name": "confidence", "budget": 2.0, "thresholds": thresholds, "score": 50.0}]
        (tmp_path / "early_exit.json").write_text(json.dumps(report))
        return load()

    sure = sorted(max(prediction.logits) for prediction in exits(1e8, -1e8, -1e8, -1e8)(paths))
    predictor = exits(1e8, sure[2], -1e8, -1e8)  # two of the four leave at the second exit, the others at the third
    predictions = predictor(paths)
    assert sorted(prediction.exit for prediction in predictions) == [1, 1, 2, 2]
    for prediction in predictions:
        assert len(prediction.boxes) == len(prediction.frames) == prediction.exit
    assert len({prediction.cost for prediction in predictions}) > 1 and "early exit" in predictor.protocol
    made = batch.VideoPredictor(run / "last.pt", device="cpu", early_exit=tmp_path, budget=2.0)
    for row, prediction in zip(made.rows(paths), predictions, strict=True):
        equal({"error": None, **row}, prediction)
    for changes, says in (
        ({"rows": []}, "no budget 2"),
        ({"chunk": 2}, "thresholds and this network"),
        ({"chunk": 0}, "is not what mode=early_exit"),
    ):
        (tmp_path / "early_exit.json").write_text(json.dumps(report | changes))
        with pytest.raises(UserError, match=says):
            load()


def test_a_video_that_kills_its_process_gets_an_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = batch.VideoPredictor(run / "last.pt", device="cpu")
    work = engines._Work.__call__

    def crash(self: engines._Work, chunk: engines.Chunk) -> list[engines.Row]:
        if any("04.mp4" in path for _, path in chunk):
            os.kill(os.getpid(), signal.SIGSEGV)
        return work(self, chunk)

    monkeypatch.setattr(engines._Work, "__call__", crash)
    videos = {str(number): str(run / f"videos/{number:02d}.mp4") for number in range(0, 20, 2)}
    found = {row["id"]: row for row in engines.predict_locally(made, videos, 1)}
    assert len(found) == 10 and [name for name, row in found.items() if row.get("error")] == ["4"]
    assert "crashed (exit status -11)" in found["4"]["error"]


def test_batches_of_every_kind(run: Path) -> None:
    import pyarrow

    pandas = pytest.importorskip("pandas")
    made = batch.VideoPredictor(run / "last.pt", device="cpu", root=str(run / "videos"), top=2)
    paths = ["00.mp4", "../last.pt"]
    of_table = made(pyarrow.table({"path": paths, "owner": ["a", "b"]}))
    of_dict = made({"path": paths, "owner": ["a", "b"]})
    of_frame = made(pandas.DataFrame({"path": paths, "owner": ["a", "b"]}, index=[7, 9]))
    assert of_table.column_names == list(of_dict) == list(of_frame.columns) == ["owner", *columns(2)]
    assert of_table["score"].to_pylist() == of_dict["score"] and of_frame.index.tolist() == [7, 9]
    assert of_dict["score"][1] is None and "leads out" in of_dict["error"][1] and "label_3" not in of_dict


def test_tables_of_other_jobs_are_refused(tmp_path: Path) -> None:
    kinds = {"id": str, "error": str}
    with PartTable(tmp_path / "out", kinds, {"network": "a"}) as table:
        table.write({"id": "1"})
        table.write({"id": "1"})
        if (child := os.fork()) == 0:  # another process
            try:
                PartTable(tmp_path / "out", kinds, {"network": "a"}).__enter__()
            except UserError as error:
                os._exit(7 if "in use" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(rows(tmp_path / "out")) == 1
    with (
        pytest.raises(UserError, match="another job \\(other network\\)"),
        PartTable(tmp_path / "out", kinds, {"network": "b"}),
    ):
        pass
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="choose an empty folder"), PartTable(tmp_path / "mine", kinds, {}):
        pass
    (tmp_path / "out/part-000000.parquet").write_bytes(b"torn")
    with pytest.raises(UserError, match="delete it"), PartTable(tmp_path / "out", kinds, {"network": "a"}):
        pass


def test_what_goes_wrong_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("name\nx\n")
    (tmp_path / "twice.csv").write_text("id,path\n1,a.mp4\n1,b.mp4\n")
    (tmp_path / "none.txt").write_text("\n")
    cases = {
        (str(tmp_path / "t.csv"),): "no column 'path'",
        (str(tmp_path / "twice.csv"),): "ids must be unique",
        (str(tmp_path / "none.txt"),): "names no video",
        (str(tmp_path / "gone.parquet"),): "cannot be read",
        (str(tmp_path),): "has no video",
        ("file:///etc",): "only addresses of",
        (str(run / "videos"), str(run / "videos")): "one input",
        (str(run / "videos"), "--root", "/"): "--root is for",
        (str(run / "videos"), "--draw", "x.png"): "--draw does not go",
        (str(run / "videos"), "--budget", "2"): "--budget is for",
        (str(run / "videos"), "--workers", "0"): "--workers 0",
    }
    for typed, says in cases.items():
        arguments = ["predict", str(run / "last.pt"), *typed, "--table", str(tmp_path / "out"), "--device", "cpu"]
        assert main(arguments) == 2, typed
        printed = capsys.readouterr().err
        assert says in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_gives_the_same_rows(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='pip install "adafocus[ray]"')
    for engine in ("local", "ray"):
        assert main(command(run, run / "videos", tmp_path / engine, "--engine", engine, "--workers", "1")) == 1
    local, ray = rows(tmp_path / "local"), rows(tmp_path / "ray")
    assert local.keys() == ray.keys() and len(local) == 20
    for name, row in local.items():
        assert row | {"seconds": 0} == ray[name] | {"seconds": 0}
