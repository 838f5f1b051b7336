"""Trackers: parameters, curves, pictures, the report and the checkpoint arrive, and a dead server ends nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from adafocus.core.errors import UserError
from adafocus.training import loggers
from adafocus.training.logger import RunLogger, log
from adafocus.training.trackers import CSVLogger, identify


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A finished run below a sweep."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").write_text("")
    return Path(shutil.copytree(small_run, tmp_path / "sweep/run"))


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *values: said.append(text % values))
    return said


def track(folder: Path, name: str) -> None:
    """A run that is interrupted after its second step, continued from its first, and finished."""
    makers = loggers.factories([name])
    with RunLogger(folder, loggers=makers) as run_logger:
        run_logger.rewind(0, 0)
        for step in (1, 2):
            run_logger.record("train", step, {"loss": 1.0 / step, "note": "text"})
    with RunLogger(folder, loggers=makers) as run_logger:
        run_logger.rewind(run_logger.offset, 1)
        run_logger.record("train", 2, {"loss": 0.5})
        run_logger.record("evaluate", 2, {"top1": 75.0})
        run_logger.picture("patches", 2, Image.new("RGB", (8, 8)))
        run_logger.finish(json.loads((folder / "summary.json").read_text()))


def test_csv_holds_every_number_once(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    track(run, "csv")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(CSVLogger.HEADER)
    assert rows[1:] == [["train", "1", "loss", "1.0"], ["train", "2", "loss", "0.5"], ["evaluate", "2", "top1", "75.0"]]


def test_tensorboard_compares_runs_by_their_configuration(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(run, "tensorboard")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    final = events.Scalars("final/score")[-1].value
    assert final == pytest.approx(json.loads((run / "summary.json").read_text())["score"])


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server of MLflow on this machine that keeps runs in an SQLite file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_mlflow_gets_everything_in_one_run_until_its_server_dies(
    run: Path, warned: list[str], monkeypatch, tmp_path: Path
) -> None:
    if find_spec("mlflow") is None:
        pytest.skip('mlflow is not installed (pip install "adafocus[mlflow]")')
    from mlflow.tracking import MlflowClient

    with mlflow_server(tmp_path) as (address, process):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        track(run, "mlflow")
        assert not warned
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("adafocus")
        found = client.search_runs([experiment.experiment_id])
        assert len(found) == 1
        data, info = found[0].data, found[0].info
        assert info.status == "FINISHED" and info.run_name == "run" and data.tags["sweep"] == "sweep"
        assert data.params["schedule.epochs"] == "3" and data.params["patch.size"] == "16"
        history = client.get_metric_history(info.run_id, "train/loss")
        assert {(point.step, point.value) for point in history} == {(1, 1.0), (2, 0.5)}
        assert data.metrics["final/score"] == json.loads((run / "summary.json").read_text())["score"]
        names = {item.path for item in client.list_artifacts(info.run_id)}
        assert {"report.html", "predictions.csv", "summary.json", "last.pt", "patches"} <= names
        assert [item.path for item in client.list_artifacts(info.run_id, "patches")] == ["patches/00000002.png"]

        with RunLogger(run, loggers=loggers.factories(["mlflow"])) as run_logger:
            run_logger.record("train", 3, {"loss": 0.4})
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            started = time.monotonic()
            for step in range(4, 40):
                run_logger.record("train", step, {"loss": 0.4})
        assert time.monotonic() - started < 30
        assert len(warned) == 1 and "logger mlflow failed" in warned[0] and "\n" not in warned[0]
        assert "onnection" in warned[0] or "retries" in warned[0], warned


@pytest.mark.slow
def test_wandb_keeps_everything_offline(run: Path, warned: list[str], monkeypatch, tmp_path: Path) -> None:
    if find_spec("wandb") is None:
        pytest.skip('wandb is not installed (pip install "adafocus[wandb]")')
    for name, value in (("MODE", "offline"), ("CACHE_DIR", str(tmp_path)), ("DATA_DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    track(run, "wandb")
    assert not warned
    kept = sorted((run / "wandb").glob("offline-run-*"))
    number = identify(run).known["wandb"]
    assert len(kept) == 2 and all(folder.name.endswith(f"-{number}") for folder in kept)  # `wandb sync` joins them
    names = ["schedule.epochs", "patch.size", "train/loss", "val/top1", "final/score", "sweep"]
    names += ["report.html", "predictions.csv", "last.pt"]
    until, missing = time.monotonic() + 20, names
    while missing and time.monotonic() < until:  # wandb's own process may still write after `finish` has returned
        said = b"".join(_contents(path) for folder in kept for path in folder.glob("*.wandb"))
        missing = [name for name in names if name.encode() not in said]
    assert not missing
    assert list(kept[1].glob("files/media/images/patches*.png"))
    pages = list(kept[1].glob("files/media/html/report*.html"))
    assert [page.read_bytes() for page in pages] == [(run / "report.html").read_bytes()]


def _contents(path: Path) -> bytes:
    """The records of an offline run in a row: its file is a LevelDB log, which splits them at blocks of 32 KiB."""
    data, at, found = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size = int.from_bytes(data[at + 4 : at + 6], "little")
        found += data[at + 7 : at + 7 + size]
        at += 7 + size
    return found


def test_wandb_asks_nobody_to_log_in(run: Path, warned: list[str], monkeypatch, tmp_path: Path) -> None:
    if find_spec("wandb") is None:
        pytest.skip('wandb is not installed (pip install "adafocus[wandb]")')
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with RunLogger(run, loggers=loggers.factories(["wandb"])) as run_logger:
        run_logger.record("train", 1, {"loss": 1.0})
    assert len(warned) == 1 and "nobody is logged in" in warned[0]


def test_a_missing_package_is_refused_at_the_start(monkeypatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "adafocus\[mlflow\]"'):
        loggers.factories(["tensorboard", "mlflow"])


def test_a_stage_is_a_run_of_its_own_with_the_configuration_of_the_whole(run: Path) -> None:
    stage = run / "stages/1"
    stage.mkdir(parents=True)
    about = identify(stage)
    assert (about.name, about.group) == ("run/1", "sweep")
    assert about.parameters() == identify(run).parameters() and about.parameters()["schedule.epochs"] == 3
    about.remember("mlflow", "abc")
    assert identify(stage).known == {"mlflow": "abc"} and identify(run).known == {}
