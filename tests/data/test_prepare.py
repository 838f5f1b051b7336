from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from helpers import numbered

from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.data import prepare
from adafocus.data.annotations import read_bad_list


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        numbered.write(tmp_path / name / "good one.mp4", 10)
    (tmp_path / "run/page.mp4").write_text("<html>")
    return tmp_path


def test_every_file_is_decoded_once_and_bad_ones_are_named(root: Path) -> None:
    results = prepare.check_folder(root, workers=2)
    assert [(result.path, result.ok, result.num_frames) for result in results] == [
        ("run/good one.mp4", True, 10),
        ("run/page.mp4", False, 0),
        ("walk/good one.mp4", True, 10),
    ]
    prepare.write_report(results, root / "report")
    assert read_bad_list(root / "report/bad.txt") == {"run/page.mp4"}
    assert json.loads((root / "report/check.json").read_text())["bad"] == 1


def test_lists_are_compared_with_what_decodes(root: Path) -> None:
    (root / "train.txt").write_text("run/good one.mp4 12 0\ngone.mp4 5 1\n")
    good, gone = prepare.check_folder(root)
    assert good.ok and good.reason == "10 frames decode, the list says 12"
    assert not gone.ok and "no such file" in gone.reason


def _stuck(path) -> int:
    time.sleep(60)
    return 0


def _crash(path) -> int:
    import os

    os._exit(7)


@pytest.mark.parametrize(("decoder", "says"), [(_stuck, "not decoded within 0.5 s"), (_crash, "exit status 7")])
def test_a_file_that_hangs_or_kills_its_decoder_harms_no_other(root: Path, monkeypatch, decoder, says: str) -> None:
    monkeypatch.setattr(prepare, "decode_all", decoder)
    results = prepare.check_files([("a", None), ("b", None)], root, workers=2, timeout=0.5)
    assert all(not result.ok and says in result.reason for result in results)


def test_the_command_says_what_is_bad(root: Path, capsys) -> None:
    assert main(["prepare", "check", str(root), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "bad: run/page.mp4" in printed and "3 files, 1 bad" in printed


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no videos"):
        prepare.check_folder(tmp_path)


def test_a_folder_that_cannot_be_written_has_its_report_elsewhere(
    root: Path, tmp_path_factory, monkeypatch, capsys
) -> None:
    import os

    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root and real(path, mode))
    assert main(["prepare", "check", str(root), "--workers", "1"]) == 1
    assert "cannot be written: the report goes to" in capsys.readouterr().out
    assert read_bad_list(here / "bad.txt") == {"run/page.mp4"} and not (root / "bad.txt").exists()
    assert main(["prepare", "check", str(root), "--workers", "1", "--output", "/proc/nowhere"]) == 2
    assert "choose --output FOLDER" in capsys.readouterr().err


def test_the_check_and_the_training_see_the_same_files(root: Path) -> None:
    """`adafocus prepare check` and training list the same files, with names that are not UTF-8, in every layout, and
    with entries that are not regular files."""
    import os

    os.rename(root / "run/page.mp4", os.fsencode(root / "run") + b"/p\xe9.mp4")
    os.mkfifo(root / "walk/pipe.mp4")
    results = prepare.check_folder(root)
    assert {os.fsencode(result.path) for result in results if not result.ok} == {b"run/p\xe9.mp4", b"walk/pipe.mp4"}
    prepare.write_report(results, root / "report")
    assert "run/p\udce9.mp4" in read_bad_list(root / "report/bad.txt")
    for name in ("Train", "Valid"):
        (root / name).mkdir()
        (root / "run").rename(root / name / "run") if name == "Train" else (root / "walk").rename(root / name / "walk")
    assert {result.path.split("/")[0] for result in prepare.check_folder(root)} == {"Train", "Valid"}
