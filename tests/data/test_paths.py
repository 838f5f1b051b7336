"""Tests that rows of untrusted list files cannot lead outside the data folder, and that preparation removes no file
that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import numbered

from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.data import annotations
from adafocus.data.extract import STAGING, extract_all
from adafocus.data.paths import below, printable, read_text


@pytest.mark.parametrize("row", ["../x.mp4", "a/../../x.mp4", "/etc/passwd", "..", ".", "a\0b", "a" * 300, "a/" * 3000])
def test_a_row_that_leads_out_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "train.txt").write_text(f"good.mp4 9 0\n{row} 9 0\n")
    with pytest.raises(UserError, match="(line 2|zero bytes)") as error:
        annotations.read_list(tmp_path / "train.txt", 2, videos=tmp_path / "videos")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_an_absolute_path_in_the_folder_of_the_videos_becomes_relative(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert below(str(tmp_path / "real/a/b.mp4"), "row", tmp_path / "real") == "a/b.mp4"
    assert below(str(tmp_path / "real/a.mp4"), "row", tmp_path / "link") == "a.mp4"
    assert below("./a//b/../c.mp4", "row") == "a/c.mp4"
    with pytest.raises(UserError):
        below(str(tmp_path / "realm/a.mp4"), "row", tmp_path / "real")


def minik(tmp_path: Path, *rows: str) -> list[str]:
    (tmp_path / "a").mkdir()
    (tmp_path / "v").mkdir()
    numbered.write(tmp_path / "v/ok.mp4", 5)
    (tmp_path / "a/minik_classInd.txt").write_text("\n".join(f"class {number}" for number in range(200)))
    for name in ("train", "val"):
        (tmp_path / f"a/mini_{name}_videofolder.txt").write_text("".join(f"{row}\n" for row in rows))
    root = tmp_path / "root"
    return [
        "prepare",
        "minik",
        str(root),
        f"--annotations={tmp_path / 'a'}",
        f"--videos={tmp_path / 'v'}",
        "--workers=1",
    ]


@pytest.mark.parametrize("row", ["../../evil/ok", "{tmp}/evil/ok", "a/../../evil/ok"])
def test_frames_are_never_written_outside_the_root(tmp_path: Path, row: str, capsys) -> None:
    canary = tmp_path / "evil/ok.part/canary"
    canary.parent.mkdir(parents=True)
    canary.write_text("here")
    assert main(minik(tmp_path, "fine/ok 5 1", f"{row.format(tmp=tmp_path)} 5 0")) == 2
    assert "line 2: the path" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "evil").iterdir()) == ["ok.part"] and canary.is_file()
    assert not (tmp_path / "root").exists()


def test_a_link_out_of_the_root_is_not_followed_and_nothing_of_others_is_removed(tmp_path: Path, capsys) -> None:
    typed = minik(tmp_path, "fine/ok 5 1", "out/ok 5 0")
    root, outside = tmp_path / "root", tmp_path / "outside"
    canaries = [root / "fine/ok.part/canary", outside / "canary", root / f"{STAGING}mine/canary"]
    for canary in canaries:
        canary.parent.mkdir(parents=True)
        canary.write_text("here")
    (root / "out").symlink_to(outside)
    assert main(typed) == 1
    assert "out/ok: leads out of" in (root / "missing_mini_train_videofolder.txt").read_text().replace("\t", ": ")
    assert all(canary.is_file() for canary in canaries) and [path.name for path in outside.iterdir()] == ["canary"]
    assert len(list((root / "fine/ok").iterdir())) == 5
    assert [path.name for path in root.glob(f"{STAGING}*")] == [f"{STAGING}mine"]


def test_what_a_killed_extraction_left_goes_and_a_running_one_stays(tmp_path: Path) -> None:
    import fcntl

    video = numbered.write(tmp_path / "ok.mp4", 5)
    for name in ("killed", "running"):
        (tmp_path / f"{STAGING}{name}").mkdir()
        (tmp_path / f"{STAGING}{name}/adafocus.lock").touch()
    with open(tmp_path / f"{STAGING}running/adafocus.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        extract_all([(video, "x")], tmp_path, template="{:05d}.jpg")
    assert [path.name for path in tmp_path.glob(f"{STAGING}*")] == [f"{STAGING}running"]
    assert (tmp_path / "x").stat().st_mode & 0o777 == (tmp_path / f"{STAGING}running").stat().st_mode & 0o777


def test_names_that_are_no_text_are_shown_by_their_codes() -> None:
    assert printable("a\x1b[31mb\udcff") == "a\\x1b[31mb\\udcff" and printable("Füße") == "Füße"


@pytest.mark.parametrize(
    ("data", "says"), [(b"a\nb\xe9\n", "line 2: not UTF-8 text"), ("a\nb\n".encode("utf-16-le"), "zero bytes")]
)
def test_text_in_another_encoding_is_one_line_that_names_the_file(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(UserError, match=f"classes.txt.*{says}"):
        read_text(tmp_path / "classes.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "train.txt").write_bytes("é/a.mp4 9 0\n".encode(encoding))
    (tmp_path / "classes.txt").write_bytes("é\nb\n".encode(encoding))
    assert annotations.read_list(tmp_path / "train.txt", 2).records[0].path == "é/a.mp4"
    assert annotations.read_classes(tmp_path / "classes.txt") == ["é", "b"]
