"""Tests of SIGINT and SIGTERM, sent to the launcher, to a process or to both, and of the state of the run after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import runs

from adafocus.core.status import read_status, write_status
from adafocus.processes.signals import Interrupted, Signals
from adafocus.runs import launch
from adafocus.runs.launch import LOST, _first_cause, _Job


def test_a_signal_ends_at_once_or_is_noted() -> None:
    with Signals() as signals, pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    with Signals() as signals, signals.deferred():
        signal.raise_signal(signal.SIGINT)
        assert signals.number == signal.SIGINT
        with pytest.raises(Interrupted, match="SIGINT"), signals.at_once():
            raise AssertionError("not reached")


def test_only_a_second_signal_from_the_same_side_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("adafocus.processes.signals.leave", left.append)
    with Signals() as signals, signals.deferred():
        signal.raise_signal(signal.SIGTERM)  # a cluster sends the signal to all processes
        signals._passed_on = True
        signal.raise_signal(signal.SIGTERM)  # the launcher passes on the one that it got
        assert not left and signals.number == signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        assert left == [143]


def job(folder: Path, *programs: str) -> _Job:
    found = _Job(folder)
    for program in programs:
        read_end, write_end = os.pipe()
        found.children.append(subprocess.Popen([sys.executable, "-c", program]))
        found.pipes.append(write_end)
        os.close(read_end)
    return found


def test_a_process_that_hangs_is_killed_when_another_has_failed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.1)
    monkeypatch.setattr(launch, "PATIENCE", 0.3)
    hanging = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    started = time.monotonic()
    assert job(tmp_path, "raise SystemExit(2)", hanging).wait() == 2
    assert time.monotonic() - started < 10


def test_a_killed_process_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_status(tmp_path, "running", step=3, steps=9)
    assert job(tmp_path, "import os; os.kill(os.getpid(), 9)").wait() == 137
    said = capfd.readouterr().err.strip()
    assert "killed by SIGKILL (out of memory?)" in said and "\n" not in said
    status = read_status(tmp_path)
    assert (status["state"], status["step"], status["steps"]) == ("failed", 3, 9)


def test_the_cause_of_an_end_is_who_did_not_only_follow() -> None:
    assert _first_cause([LOST, -9]) == -9
    assert _first_cause([LOST, 2]) == 2 == _first_cause([0, 2])
    assert _first_cause([0, LOST]) == LOST
    assert _first_cause([0, 0]) == 0


def signal_when(folder: Path, process: subprocess.Popen, lines: int, number: int, to: str) -> tuple[str, int]:
    """Sends a signal as soon as metrics.jsonl has `lines` lines; returns the output and the exit status."""
    path = folder / "metrics.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if to == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if to == "launcher" else int(children[-1]), number)
    output, _ = process.communicate(timeout=120)
    return output, process.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "workers", "signals"),
    [
        ("1", "2", [(2, "SIGTERM", "launcher"), (4, "SIGINT", "worker"), (6, "SIGTERM", "group")]),
        ("2", "0", [(2, "SIGINT", "launcher"), (4, "SIGTERM", "worker"), (6, "SIGINT", "group")]),
    ],
)
def test_an_interrupted_run_saves_the_step_it_has_reached(
    tmp_path: Path, devices, workers, signals, monkeypatch
) -> None:
    """An interrupted and continued run ends with the same bits as an uninterrupted run, and leaves no temporary
    files."""
    # Loader processes pass tensors through sockets in this folder, and the path of a socket is limited to about 100
    # characters.
    temporary = Path(tempfile.mkdtemp(prefix="af", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    # Losses are written every fourth step only, so the mean since the last line has to be saved as well.
    typed = runs.arguments(loader__workers=workers, output__log_every="4")
    typed.append(f"devices={devices}")
    whole = runs.apart(tmp_path, *typed, "name=whole")
    assert "Warning" not in whole
    folder = tmp_path / "outputs/cut"
    for lines, name, to in signals:
        number = signal.Signals[name]
        output, code = signal_when(folder, runs.start(tmp_path, *typed, "name=cut"), lines, number, to)
        assert code == 128 + number, output
        last = output.strip().splitlines()[-1]
        status = read_status(folder)
        assert status["state"] == "interrupted" and "Traceback" not in output
        assert last == f"interrupted ({name}) at step {status['step']} of 18; the same command continues this run"
        assert status["step"] > 0
    output = runs.apart(tmp_path, *typed, "name=cut")
    assert f"continuing from step {status['step']} of 18" in output
    runs.same(folder, tmp_path / "outputs/whole")
    assert not list(temporary.glob("pymp-*"))
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_an_end_from_outside_is_one_line(tmp_path: Path) -> None:
    """A second start in the same folder, a killed loader process, a killed rank and a signal during start-up each end
    with one line."""
    typed = [*runs.arguments(loader__workers="1", schedule__epochs="60"), "devices=2", "name=x"]
    folder = tmp_path / "outputs/x"

    def begin(lines: int) -> subprocess.Popen:
        process = runs.start(tmp_path, *typed)
        path = folder / "metrics.jsonl"
        while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
            time.sleep(0.01)
        return process

    def children(pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def said(process: subprocess.Popen) -> list[str]:
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output, output
        return [line for line in output.splitlines() if line.startswith(("error", "interrupted"))]

    process = begin(2)
    before = (folder / "config.json").read_bytes()
    output = runs.apart(tmp_path, *typed, "output.log_every=7", expect=2)
    assert output.strip().splitlines() == [
        f"error: {folder} is in use by another process; wait for it or choose another name=NAME"
    ]
    assert (folder / "config.json").read_bytes() == before and process.poll() is None
    os.kill(children(children(process.pid)[1])[0], signal.SIGKILL)
    assert len(lines := said(process)) == 1 and "a loader process" in lines[0], lines
    assert process.returncode == 2 and read_status(folder)["state"] == "failed"

    process = begin(10)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    (line,) = said(process)
    assert line.startswith("error: process 1 of the run was killed by SIGKILL (out of memory?)")
    assert process.returncode == 137 and read_status(folder)["state"] == "failed"

    process = runs.start(tmp_path, *typed)
    while process.poll() is None and len(children(process.pid)) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    (line,) = said(process)
    assert line.startswith("interrupted (SIGTERM)") and process.returncode == 143
    assert read_status(folder)["state"] == "interrupted"
