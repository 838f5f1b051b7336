"""Tests of training with several processes: same scores and losses as with one, and one run folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus.core.errors import UserError
from adafocus.processes.distributed import World, pick_device
from adafocus.runs import launch


@pytest.mark.slow
def test_one_two_and_three_processes_give_the_same_score_and_losses(tmp_path: Path) -> None:
    # BatchNorm is frozen: its statistics would be the only thing that depends on how a batch is split.
    typed = runs.arguments(schedule__freeze_norm="true", schedule__batch_size="12", schedule__epochs="2")
    for devices in (1, 2, 3):
        runs.apart(tmp_path, *typed, f"devices={devices}", f"name=d{devices}")
    one = tmp_path / "outputs/d1"
    for devices in (2, 3):
        other = tmp_path / f"outputs/d{devices}"
        for ours, theirs in zip(runs.lines(other), runs.lines(one), strict=True):
            assert ours["step"] == theirs["step"]
            if "loss" in ours:
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert [row["score"] for row in runs.summary(other)["rows"]] == [
            row["score"] for row in runs.summary(one)["rows"]
        ]
        assert runs.summary(other)["device"].startswith(f"{devices} x CPU")


@pytest.mark.slow
def test_accumulation_is_the_same_step(tmp_path: Path) -> None:
    typed = runs.arguments(schedule__freeze_norm="true", schedule__epochs="1")
    for parts in (1, 2):
        runs.apart(tmp_path, *typed, f"schedule.accumulation_steps={parts}", f"name=a{parts}")
    one, two = (
        [line["loss"] for line in runs.lines(tmp_path / f"outputs/a{parts}") if line["kind"] == "train"]
        for parts in (1, 2)
    )
    assert len(one) == 6 and two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_torchrun_works_in_one_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(runs.ROOT / "run.py"),
        *runs.arguments(schedule__epochs="1"),
        "devices=2",
        "name=t",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=runs.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["t"]
    assert runs.summary(tmp_path / "outputs/t")["state"] == "finished"


@pytest.mark.slow
def test_a_rank_that_fails_takes_the_others_down_with_its_reason(tmp_path: Path) -> None:
    output = runs.apart(tmp_path, *runs.arguments(schedule__lr="1e9"), "devices=2", "name=x", expect=2)
    assert "the loss is not finite at step" in output
    assert runs.apart(tmp_path, *runs.arguments(schedule__lr="1e9"), "devices=2", "name=x", expect=2)


@pytest.mark.slow
def test_the_score_of_several_processes_is_that_of_the_saved_weights(tmp_path: Path) -> None:
    # BatchNorm is trained, and every process sees its own part of a batch; with a high learning rate the statistics of
    # the processes differ visibly.
    typed = runs.arguments(
        schedule__batch_size="12", schedule__lr="0.05", dataset__val_videos="60", schedule__select="last"
    )
    for devices in (2, 3):
        folder = f"outputs/d{devices}"
        runs.apart(tmp_path, *typed, f"devices={devices}", f"name=d{devices}", "output.loggers=[tensorboard]")
        runs.apart(
            tmp_path,
            "mode=evaluate",
            f"checkpoint={folder}/last.pt",
            "device=cpu",
            "loader.workers=0",
            f"name=e{devices}",
        )
        trained, evaluated = (runs.summary(tmp_path / f"outputs/{kind}{devices}")["rows"] for kind in "de")
        assert trained == evaluated
        events = [path.name for path in (tmp_path / folder / "tensorboard").iterdir()]
        assert len({name.split(".")[-2] for name in events}) == 1, events  # only one process writes events


def started_elsewhere(cwd: Path, names: tuple[str, ...], rank: int, port: int, *typed: str) -> subprocess.Popen:
    """Starts one of two processes as torchrun, srun or mpirun would, with these names of environment variables."""
    environment = {**runs.environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= dict(zip(names, (str(rank), "2", "0", "1"), strict=True))
    cwd.mkdir(exist_ok=True)
    command = [sys.executable, str(runs.ROOT / "run.py"), *typed, "devices=2", "name=t"]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
def test_nodes_need_one_folder(tmp_path: Path) -> None:
    typed = runs.arguments(schedule__epochs="1")
    for names, folders, code in ((launch.STARTERS[0], ("a", "b"), 2), (launch.STARTERS[1], ("c", "c"), 0)):
        port = free_port()
        processes = [
            started_elsewhere(tmp_path / folder, names, rank, port, *typed) for rank, folder in enumerate(folders)
        ]
        said = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [code, code], said
        if code:
            (line,) = "".join(said).strip().splitlines()
            assert "does not see files that process 0 writes to" in line and "hydra.run.dir" in line
    assert runs.summary(tmp_path / "c/outputs/t")["device"].startswith("2 x CPU")


@pytest.mark.parametrize("names", launch.STARTERS)
def test_processes_of_other_starters_are_known(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sum(launch.STARTERS, ()), "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_NNODES"]:
        monkeypatch.setenv(name, "")  # monkeypatch then also restores the variables that the code under test sets
        monkeypatch.delenv(name)
    assert not launch.adopt_processes()
    for name, value in zip(names[:3], ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{names[1]}=8 .* MASTER_ADDR and MASTER_PORT are not set"):
        launch.adopt_processes()
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert launch.adopt_processes()
    assert [os.environ[name] for name in launch.STARTERS[0]] == ["5", "8", "1", "4"]
    for name in launch.STARTERS[0]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(names[1], "1")
    monkeypatch.setenv(names[0], "0")
    assert not launch.adopt_processes()  # a job of one process starts its own processes


def test_the_device_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto", 3, 4, own=False) == torch.device("cuda", 0)  # srun --gpus-per-task=1
    with pytest.raises(UserError, match="only 1 CUDA devices are visible"):
        pick_device("cuda", 1, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert pick_device("auto", 3, 4, own=False) == torch.device("cuda", 3)


def test_batchnorm_over_all_processes_is_for_gpus() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    with pytest.raises(UserError, match="CUDA devices only"):
        World(0, 2, torch.device("cpu")).synchronize_norms(network)
    converted = World(0, 2, torch.device("cuda", 0)).synchronize_norms(network)
    assert isinstance(converted[0], torch.nn.SyncBatchNorm)
    assert converted.state_dict().keys() == torch.nn.Sequential(torch.nn.BatchNorm2d(2)).state_dict().keys()
    for typed in ("sync_batchnorm=true", "device=cpu devices=2 sync_batchnorm=true"):
        with pytest.raises(UserError, match="needs several CUDA devices"):
            composed("dataset=glyphs", *typed.split())
