from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import numbered
from PIL import Image

from adafocus.data.frames import FrameFolder, decode_folder
from adafocus.data.video import VideoError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.fromarray(numbered.picture(number)).save(tmp_path / f"img_{number + 1:05d}.jpg", quality=95)
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_frames_by_number_counted_from_the_files(folder: Path) -> None:
    with FrameFolder(folder, "img_{:05d}.jpg") as video:
        assert (video.num_frames, video.height, video.width) == (6, 64, 96)
        assert numbered.numbers(video.read([5, 0, 3, 3])) == [5, 0, 3, 3]
        assert video.read([1], short_side=32).shape == (1, 32, 48, 3)


def test_the_list_may_say_how_many(folder: Path) -> None:
    assert FrameFolder(folder, "img_{:05d}.jpg", num_frames=4).num_frames == 4


def test_a_missing_or_broken_frame_is_named_and_never_replaced(folder: Path) -> None:
    (folder / "img_00003.jpg").unlink()
    (folder / "img_00004.jpg").write_bytes(b"no picture")
    video = FrameFolder(folder, "img_{:05d}.jpg", num_frames=6)
    for index, name in ((2, "img_00003.jpg"), (3, "img_00004.jpg")):
        with pytest.raises(VideoError, match=name):
            video.read([0, index])
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(folder / "img_00005.jpg")
    with pytest.raises(VideoError, match="10x10 pixels"):
        video.read([4])


def test_folders_that_hold_no_video_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such folder"):
        FrameFolder(tmp_path / "gone")
    with pytest.raises(VideoError, match="image_00001.jpg"):
        FrameFolder(tmp_path)


def test_a_pipe_among_the_frames_is_waited_for_by_nobody(folder: Path) -> None:
    for name in ("img_00004.jpg", "img_00001.jpg"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(VideoError, match=f"{name}: frame is not a regular file"):
            FrameFolder(folder, "img_{:05d}.jpg", num_frames=6).read([0, 3])
    with pytest.raises(VideoError, match="not a regular file"):
        decode_folder(folder)
