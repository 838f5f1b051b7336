"""Tests of the inspection of video files: broken files are found before training, the result is cached, and a
damaged or forged cache has no effect."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import numbered

from adafocus.data import inspection
from adafocus.data.inspection import KEPT, broken_files


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    numbered.write(tmp_path / "good.mp4", 9)
    (tmp_path / "page.mp4").write_text("<html>")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "dir.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    return tmp_path


NAMES = ["good.mp4", "page.mp4", "empty.mp4", "dir.mp4", "pipe.mp4", "loop.mp4"]


def looked_at(monkeypatch) -> list[str]:
    """A list that fills with the names of the files that are inspected from now on rather than found in the cache."""
    seen: list[str] = []
    real = inspection.in_processes

    def spy(work, paths, workers, timeout):
        seen.extend(path.name for path in paths)
        return real(work, paths, workers, timeout)

    monkeypatch.setattr(inspection, "in_processes", spy)
    return seen


def test_a_second_look_is_at_what_has_changed_only(root: Path, monkeypatch) -> None:
    found = broken_files(NAMES, root, workers=2)
    assert set(found) == set(NAMES[1:])
    assert "not a readable video" in found["page.mp4"] and found["empty.mp4"] == "the file is empty"
    seen = looked_at(monkeypatch)
    assert broken_files(NAMES, root) == found and not seen
    numbered.write(root / "page.mp4", 9)
    assert "page.mp4" not in broken_files(NAMES, root) and seen == ["page.mp4"]


def test_a_file_that_kills_its_reader_is_broken_and_a_slow_one_is_not(root: Path, monkeypatch) -> None:
    def work(path: Path) -> None:
        if path.name == "good.mp4":
            os._exit(9)
        import time

        time.sleep(30)

    monkeypatch.setattr(inspection, "inspect_video", work)
    found = broken_files(["good.mp4", "page.mp4"], root, workers=2, timeout=0.5)
    assert found == {"good.mp4": "the decoder crashed (exit status 9)"}
    assert list(json.loads((root / KEPT).read_bytes())["files"]) == ["good.mp4"]


DAMAGED = {
    "empty": b"",
    "no text": b"\xff\0\xfe",
    "half": b'{"format": 1, "files": {"good.mp4": [1',
    "a list": b"[]",
    "other": b'{"format": 1, "files": [3]}',
    "deep": b"[" * 100000,
    "wrong values": b'{"format": 1, "files": {"good.mp4": [1.5, "x", 3], "page.mp4": null}}',
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_finding_is_ignored_and_replaced(root: Path, case: str) -> None:
    (root / KEPT).write_bytes(DAMAGED[case])
    assert set(broken_files(NAMES, root)) == set(NAMES[1:])
    assert set(json.loads((root / KEPT).read_bytes())["files"]) == {"good.mp4", "page.mp4", "empty.mp4"}


def test_the_reason_of_a_strangers_finding_is_no_terminal_code(root: Path) -> None:
    stamp = (root / "good.mp4").stat()
    known = {"good.mp4": [stamp.st_size, stamp.st_mtime_ns, "\x1b]0;x\x07" + "y" * 999]}
    (root / KEPT).write_text(json.dumps({"format": 1, "files": known}))
    reason = broken_files(["good.mp4"], root)["good.mp4"]
    assert reason.startswith("\\x1b") and len(reason) == 300


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_finding_is_never_written_through_a_link(root: Path, kind: str, tmp_path_factory) -> None:
    canary = tmp_path_factory.mktemp("elsewhere") / "canary"
    canary.write_text("here")
    (root / KEPT).symlink_to(canary) if kind == "link" else os.mkfifo(root / KEPT)
    assert set(broken_files(NAMES, root)) == set(NAMES[1:])
    assert canary.read_text() == "here" and not (root / KEPT).is_symlink() and (root / KEPT).is_file()


def test_where_the_data_cannot_be_written_the_users_cache_is(root: Path, cache: Path, monkeypatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root and real(path, mode))
    found = broken_files(NAMES, root)
    assert not (root / KEPT).exists() and len(list((cache / "adafocus").iterdir())) == 1
    seen = looked_at(monkeypatch)
    assert broken_files(NAMES, root) == found and not seen
    (cache / "adafocus").rename(cache / "gone")
    (cache / "adafocus").write_text("no folder")
    assert broken_files(NAMES, root) == found and seen  # no folder for the cache is writable


def test_an_evaluation_writes_nothing_beside_the_videos_and_reads_what_training_kept(
    root: Path, cache: Path, monkeypatch
) -> None:
    first = broken_files(NAMES, root, beside=False)
    assert not (root / KEPT).exists() and list((cache / "adafocus").iterdir())
    seen = looked_at(monkeypatch)
    assert broken_files(NAMES, root, beside=False) == first and not seen
    numbered.write(root / "new.mp4", 5)
    broken_files([*NAMES, "new.mp4"], root)  # as training does: the cache is written
    seen.clear()
    broken_files([*NAMES, "new.mp4"], root, beside=False)
    assert not seen


def test_the_shared_traps_are_found_without_decoding_them_all(shared: Path, monkeypatch) -> None:
    root = shared / "data/videos"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    expected = json.loads((root / "expected.json").read_text())
    found = broken_files(list(expected), root, workers=2)
    assert {name for name, seen in expected.items() if not seen.get("decoded_frames")} <= set(found)
    assert {name for name in found if expected[name].get("decoded_frames")} == {
        name for name in expected if "/truncated_" in name and expected[name].get("decoded_frames")
    }
