"""Tests of the files of a run: damage of any kind is reported in one line, and no checkpoint holds a number that is
not finite."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from adafocus.core.errors import UserError
from adafocus.core.files import read_json, write_bytes, write_json
from adafocus.core.status import end_status, read_status
from adafocus.runs.folder import CONTINUE, inspect
from adafocus.training.checkpoint import BEST, LAST, CheckpointStore, NotFinite, all_finite, read
from adafocus.training.logger import RunLogger, log


@contextmanager
def file_size_limit(size: int):
    """Limits the size of files that the process may write to this many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        b"\x80\x02]q\x00.",
        b"\x00" * 100,
        b"PK\x03\x04" + b"\x07" * 200,
        b"\xff\xfe\xfd",
        b"cos\nsystem\n(S'id'\ntR.",
    ],
)
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LAST
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    one_line(error, str(path), "delete it")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path: Path, share: float) -> None:
    CheckpointStore(tmp_path).save({"model": {"weight": torch.ones(1000)}})
    data = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError) as error:
        CheckpointStore(tmp_path).load()
    one_line(error, "cannot be read")


@pytest.mark.parametrize("content", [3, [1, 2], {"format": 7}, {"weights": torch.ones(2)}, torch.ones(2)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / LAST)
    with pytest.raises(UserError, match="was not written by this version"):
        read(tmp_path / LAST)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_is_not_finite_is_saved(tmp_path: Path, bad: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": {"step": 1}}
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save(state)
    assert all_finite(state) and all_finite({})
    network[1].running_var[2] = bad
    for best in (False, True):
        with pytest.raises(NotFinite):
            checkpoints.save({**state, "model": network.state_dict()}, best=best)
    assert all_finite(checkpoints.load()) and not (tmp_path / BEST).exists()
    network[1].running_var[2] = 1.0
    next(iter(optimizer.state.values()))["exp_avg_sq"][0] = bad
    assert not all_finite({"optimizer": optimizer.state_dict()})


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save({"model": {"weight": torch.ones(10)}})
    with file_size_limit(100_000), pytest.raises(UserError) as error:
        checkpoints.save({"model": {"weight": torch.zeros(100_000)}})
    one_line(error, f"{tmp_path / LAST} cannot be written (File too large)")
    assert torch.equal(checkpoints.load()["model"]["weight"], torch.ones(10))
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_an_exception_in_the_middle_of_a_save_ends_nothing_but_the_save(tmp_path: Path) -> None:
    """An exception during a save, such as a signal handler raises, ends the save only; inside torch's own file writer
    it would abort the process from C++."""

    class File:
        calls = 0

        def write(self, data) -> None:
            File.calls += 1
            if File.calls == 3:
                raise RuntimeError("a loader process is killed")

    def save(file) -> None:
        file.file = File()
        torch.save({"weight": torch.zeros(100_000)}, file)

    with pytest.raises(RuntimeError, match="loader process"):
        write_bytes(tmp_path / LAST, save)
    assert not list(tmp_path.iterdir())


def test_a_status_that_cannot_be_written_hides_no_reason(tmp_path: Path) -> None:
    with file_size_limit(10):
        end_status(tmp_path, "failed", "the disk is full")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_has_left_half_written_is_removed(tmp_path: Path) -> None:
    for name in (f"{LAST}.part", f"{BEST}.part", "mine.part"):
        (tmp_path / name).write_bytes(b"torn")
    CheckpointStore(tmp_path, active=False)
    assert (tmp_path / f"{LAST}.part").exists()
    CheckpointStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\x00", b"\xff", b"[" * 100_000, b"[1]", b"3"])
def test_damaged_json_is_one_line_or_not_needed(tmp_path: Path, content: bytes) -> None:
    for name in ("config.json", "status.json", "summary.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "config.json", dict)
    one_line(error, str(tmp_path / "config.json"), "delete it")
    assert read_status(tmp_path) == {"state": None, "step": 0, "steps": 0}
    assert inspect(tmp_path, {"x": 1}, {"x": 1}) == CONTINUE
    write_json(tmp_path / "config.json", {"x": 1})
    assert read_json(tmp_path / "config.json", dict) == {"x": 1}


@pytest.mark.parametrize(("damage", "left"), [("cut", 1), ("zero", 0), ("gone", 0), ("none", 2)])
def test_a_damaged_journal_is_said_and_no_half_line_stays(tmp_path: Path, damage, left, caplog, monkeypatch) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", logger=log.name)  # an earlier test may have set another level
    monkeypatch.setattr(log, "disabled", False)  # Hydra disables it if it ran earlier in this process
    run_logger = RunLogger(tmp_path)
    for step in (1, 2):
        run_logger.record("train", step, {"loss": 0.5})
    offset = run_logger.offset
    run_logger.record("train", 3, {"loss": 0.5})  # a line that the checkpoint does not cover
    data = run_logger.path.read_bytes()
    if damage == "gone":
        run_logger.path.unlink()
    elif damage != "none":
        run_logger.path.write_bytes(data[: offset - 5] if damage == "cut" else b"\x00" * len(data))
    run_logger.rewind(offset, 2)
    assert ("damaged or was shortened" in caplog.text) == (damage != "none")
    run_logger.record("train", 3, {"loss": 0.5})
    assert run_logger.path.read_text().count('"kind"') == left + 1 == len(run_logger.path.read_text().splitlines())
