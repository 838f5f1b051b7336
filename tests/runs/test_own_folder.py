"""Tests of dataset=folder with real files, some of them broken, from the list to the summary of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import numbered, runs

from adafocus.core.batch import BadVideo
from adafocus.data.annotations import Record
from adafocus.data.dataset import EVALUATION, VideoClips, collate
from adafocus.data.video import VideoError
from adafocus.data.view import View


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 8), ("val", 4)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                numbered.write(root / split / name / f"{number}.mp4", 12, size=(48, 64))
    return root


def clips(root: Path, names: list[str], **changes) -> VideoClips:
    records = [Record(name, (place % 2,)) for place, name in enumerate(names)]
    view = View(segments=4, size=32, short_side=36, flip=0.5)
    return VideoClips(records, root, view, **{"seed": 1, **changes})


def test_an_item_is_a_function_of_seed_epoch_and_index(root: Path) -> None:
    names = [f"train/a/{number}.mp4" for number in range(4)]
    one, two = clips(root, names), clips(root, names, cache_bytes=10**7)
    for key in ((0, 1), (3, 2), (EVALUATION, 0), (0, 1)):
        assert np.array_equal(one[key].frames, two[key].frames), key
    assert not np.array_equal(one[0, 1].frames, one[1, 1].frames)
    assert two.cache.used > 0


def test_a_full_cache_reads_from_the_file(root: Path) -> None:
    source = clips(root, ["train/a/0.mp4", "train/b/0.mp4"], cache_bytes=12 * 48 * 64 * 3)
    for index in (0, 1, 1):
        assert source[0, index].frames.shape == (4, 32, 32, 3)
    assert source.cache.used == 12 * 48 * 64 * 3


def test_training_replaces_and_reports_what_evaluation_counts_as_wrong(root: Path, tmp_path: Path) -> None:
    (root / "train/a/page.mp4").write_text("<html>")
    source = clips(root, ["train/a/page.mp4", "train/b/1.mp4"])
    item = source[0, 0]
    assert item.frames is not None and item.index == 0
    assert {bad.path for bad in item.bad} == {"train/a/page.mp4"}
    batch = collate([source[EVALUATION, 0], source[EVALUATION, 1]])
    assert batch.valid.tolist() == [False, True] and not batch.frames[0].any()
    assert isinstance(batch.bad[0], BadVideo) and "page.mp4" in batch.bad[0].reason
    with pytest.raises(VideoError, match="in a row"):
        clips(root, ["train/a/page.mp4"])[0, 0]
    (root / "train/a/page.mp4").unlink()


def test_a_mirrored_clip_takes_the_other_label(root: Path) -> None:
    view = View(segments=2, size=32, short_side=36, flip=1.0, flip_labels={0: 1, 1: 0})
    source = VideoClips([Record("train/a/0.mp4", (0,))], root, view, seed=0)
    assert source[0, 0].labels.tolist() == [1, -1, -1]
    assert source[EVALUATION, 0].labels.tolist() == [0, -1, -1]


def small(root: Path, **changes: str) -> list[str]:
    typed = runs.arguments(
        dataset__root=str(root),
        schedule__epochs="2",
        schedule__batch_size="4",
        schedule__base_batch_size="4",
        **changes,
    )
    return [
        "dataset=folder",
        "segments=4",
        *[item for item in typed if not item.startswith(("dataset.glyph", "dataset.train_v", "dataset.val_v"))],
    ]


@pytest.mark.slow
def test_class_folders_train_and_broken_files_are_counted(root: Path, tmp_path: Path) -> None:
    broken = [root / "train/a/html.mp4", root / "val/b/empty.mp4"]
    broken[0].write_text("<html>no video here</html>")
    broken[1].write_bytes(b"")
    output = runs.apart(tmp_path, *small(root, dataset__max_bad_fraction="0.2", loader__workers="2"), "name=f")
    assert "unreadable video in training" in output and "unreadable video, counted as wrong" in output
    summary = runs.summary(tmp_path / "outputs/f")
    assert summary["data"]["train"]["found"] == 16 and summary["data"]["train"]["unreadable"] == 1
    assert list(summary["unreadable"]["evaluate"]) == ["val/b/empty.mp4"]
    assert list(summary["unreadable"]["train"]) == ["train/a/html.mp4"]
    assert summary["rows"][0]["score"] <= 100 * 8 / 9
    assert (tmp_path / "outputs/f/patches.png").is_file()
    refused = runs.run(tmp_path, *small(root, dataset__max_bad_fraction="0"), "name=g", expect=2)
    assert "more than dataset.max_bad_fraction allows" in refused
    for path in broken:
        path.unlink()


@pytest.mark.slow
def test_a_run_is_evaluated_again_from_its_folder_alone(root: Path, tmp_path: Path) -> None:
    runs.run(tmp_path, *small(root), "name=f")
    before = runs.summary(tmp_path / "outputs/f")
    runs.run(tmp_path, "mode=evaluate", "checkpoint=outputs/f", "device=cpu", "loader.workers=0", "name=e")
    after = runs.summary(tmp_path / "outputs/e")
    assert after["rows"] == before["rows"] and after["protocol"] == before["protocol"]
    other = runs.run(tmp_path, "mode=evaluate", "checkpoint=outputs/f", "segments=8", "device=cpu", "name=o", expect=2)
    assert "checkpoint of another model" in other


@pytest.mark.slow
def test_lists_with_missing_videos(root: Path, tmp_path: Path) -> None:
    rows = [f"train/{name}/{number}.mp4 12 {label}" for label, name in enumerate("ab") for number in range(8)]
    (root / "lists").mkdir()
    (root / "train.txt").write_text("\n".join([*rows, "gone.mp4 12 0"]))
    (root / "val.txt").write_text("val/a/0.mp4 12 0\nval/b/0.mp4 12 1\nval/gone.mp4 12 1\n")
    (root / "classes.txt").write_text("a\nb\n")
    output = runs.run(tmp_path, *small(root), "name=f")
    assert "train: labels 0..1, 16 videos (1 missing)" in output
    assert "evaluate: labels 0..1, 2 videos (1 missing)" in output
    data = json.loads((tmp_path / "outputs/f/data.json").read_text())
    assert data["missing"] == {"train": ["gone.mp4"], "evaluate": ["val/gone.mp4"]}
    assert runs.summary(tmp_path / "outputs/f")["scores"]["top1"] <= 100 * 2 / 3 + 1e-6
