from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import numbered

from adafocus.core.errors import UserError
from adafocus.data.video import VideoError, decode_all, inspect_video, installed_readers, open_video

KINDS = {
    "plain.mp4": {"options": {"g": "12", "bf": "0"}},
    "b_frames.mp4": {"options": {"g": "12", "bf": "3"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0:b-adapt=0"}},
    "one_frame.mp4": {"count": 1},
    "xvid.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "stream.ts": {"options": {"g": "12", "bf": "3"}},
    "program.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime"}},
    "ten_bit.mp4": {"options": {"g": "12"}, "pixels": "yuv420p10le"},
    "odd.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}, "size": (65, 97)},
}


def read_frames(
    path: Path, indices: Sequence[int] | np.ndarray, *, short_side: int | None = None, reader: str = "auto"
) -> np.ndarray:
    with open_video(path, reader) as video:
        return video.read(indices, short_side)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, options in KINDS.items():
        numbered.write(folder / name, **options)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_every_index_is_the_right_frame(folder: Path, name: str) -> None:
    count = KINDS[name].get("count", 50)
    with open_video(folder / name) as video:
        assert video.num_frames == count
        for asked in (range(count), np.linspace(0, count - 1, 8).astype(int), [count - 1, 0, count // 2, count // 2]):
            frames = video.read(asked)
            assert numbered.numbers(frames) == list(asked), video.reader
            assert frames.dtype == np.uint8 and frames.shape[1:] == (video.height, video.width, 3)


@pytest.mark.parametrize("reader", installed_readers())
def test_all_readers_return_the_same_numbered_frames(folder: Path, reader: str) -> None:
    asked = [0, 7, 13, 13, 30, 49]
    frames = read_frames(folder / "b_frames.mp4", asked, reader=reader)
    assert numbered.numbers(frames) == asked
    if reader != "torchcodec":  # torchcodec converts to RGB with rounding of its own
        assert np.array_equal(frames, read_frames(folder / "b_frames.mp4", asked, reader="pyav"))


def test_hazards_are_read_in_order_and_the_rest_at_random(folder: Path) -> None:
    if "decord" not in installed_readers():
        pytest.skip("no decord here")
    used = {name: open_video(folder / name).reader for name in KINDS}
    assert {name for name, reader in used.items() if reader == "decord"} == {
        "plain.mp4",
        "b_frames.mp4",
        "one_frame.mp4",
        "vp9.webm",
    }


@pytest.mark.parametrize("short_side", [24, 32, 48, 63])
def test_reduced_frames_keep_their_numbers_and_proportions(folder: Path, short_side: int) -> None:
    for name in ("plain.mp4", "open_gop.mp4"):
        frames = read_frames(folder / name, [3, 40], short_side=short_side)
        assert frames.shape == (2, short_side, int(short_side * 96 / 64), 3)
        assert numbered.numbers(frames) == [3, 40]


def test_frames_are_never_enlarged(folder: Path) -> None:
    assert read_frames(folder / "plain.mp4", [0], short_side=500).shape == (1, 64, 96, 3)


def test_no_frames_asked_for_is_no_frames(folder: Path) -> None:
    assert read_frames(folder / "plain.mp4", []).shape == (0, 64, 96, 3)


@pytest.mark.parametrize("index", [50, -1])
def test_beyond_the_end_is_an_error(folder: Path, index: int) -> None:
    with pytest.raises(VideoError, match="it has 50"):
        read_frames(folder / "plain.mp4", [0, index])


BROKEN = {
    "empty.mp4": lambda whole: b"",
    "page.mp4": lambda whole: b"<html><body>404</body></html>" * 20,
    "text.avi": lambda whole: b"no video\n" * 50,
    "random.mkv": lambda whole: np.random.default_rng(0).bytes(5000),
    "half.mp4": lambda whole: whole[: len(whole) // 2],
    "zeroed.mp4": lambda whole: whole[: len(whole) // 3] + bytes(len(whole) // 3) + whole[2 * len(whole) // 3 :],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name]((folder / "b_frames.mp4").read_bytes()))
    with pytest.raises(VideoError) as error:
        read_frames(tmp_path / name, np.linspace(0, 49, 16).astype(int))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_missing_files_folders_and_sound_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="is a folder"):
        open_video(tmp_path)
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream"):
        open_video(tmp_path / "sound.m4a")


def test_a_slow_decode_ends_at_its_limit(folder: Path) -> None:
    with pytest.raises(VideoError, match="longer than"):
        open_video(folder / "open_gop.mp4", "pyav", timeout=0.0).read([49])


@pytest.mark.parametrize("name", ["xvid.avi", "vp9.webm", "b_frames.mkv"])
def test_half_a_file_is_no_shorter_video(folder: Path, tmp_path: Path, name: str) -> None:
    """A truncated file, which holds fewer frames than its header states, is refused as truncated and not read as a
    shorter video."""
    whole = folder / name
    if not whole.exists():
        numbered.write(whole, options={"g": "12"})
    if name == "xvid.avi":
        whole = numbered.write(tmp_path / "long.avi", 400, codec="mpeg4", options={"g": "12"})
    assert open_video(whole).num_frames in (50, 400)
    data = whole.read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(VideoError, match="truncated: its header promises|not a readable video"):
        inspect_video(tmp_path / name)


def test_what_is_no_file_is_named_and_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for name, says in {"pipe.mp4": "not a regular file", "loop.mp4": "symbolic link", "x" * 300: "too long"}.items():
        with pytest.raises(VideoError, match=says):
            open_video(tmp_path / name)


def test_unknown_readers_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="pyav"):
        open_video(folder / "plain.mp4", reader="vhs")


def in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            np.rot90(frame.to_ndarray(format="rgb24"), int(frame.rotation) // 90 % 4)
            for frame in container.decode(container.streams.video[0])
        ]


def test_every_shared_file_is_exact_or_one_clear_error(shared: Path) -> None:
    root = shared / "data/videos"
    exact = failed = 0
    for name, seen in json.loads((root / "expected.json").read_text()).items():
        if (root / name).stat().st_size > 3_000_000:
            continue  # the largest files take a minute and test nothing else
        try:
            with open_video(root / name) as video:
                patterns = [np.linspace(0, video.num_frames - 1, 16).astype(int), [video.num_frames - 1, 0]]
                answers = [video.read(pattern) for pattern in patterns]
        except VideoError as error:
            damaged = seen.get("pyav_decode_error") or not seen.get("decoded_frames")
            assert damaged or ("truncated" in name and "truncated" in str(error)), (name, error)
            assert "\n" not in str(error)
            failed += 1
            continue
        assert video.num_frames == seen["decoded_frames"], name
        reference = in_order(root / name)
        for pattern, frames in zip(patterns, answers, strict=True):
            assert all(np.array_equal(frame, reference[i]) for i, frame in zip(pattern, frames, strict=True)), name
        exact += 1
    assert exact > 50 and failed > 10


def test_a_complete_decode_counts_and_finds_damage(folder: Path, tmp_path: Path) -> None:
    assert decode_all(folder / "open_gop.mp4") == 50
    whole = (folder / "b_frames.mp4").read_bytes()
    (tmp_path / "zeroed.mp4").write_bytes(BROKEN["zeroed.mp4"](whole))
    with pytest.raises(VideoError, match="zeroed.mp4"):
        decode_all(tmp_path / "zeroed.mp4")
