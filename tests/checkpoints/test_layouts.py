"""Tests that read small imitations of the data sets of the papers' repositories, from their list files to clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered
from hydra import compose, initialize_config_dir
from PIL import Image

from adafocus import build, config
from adafocus.config import compose as composing
from adafocus.core.errors import UserError
from adafocus.data.dataset import EVALUATION, collate


def composed(*typed: str) -> config.Config:
    composing.register(list(typed))
    with initialize_config_dir(version_base="1.3", config_dir=str(composing.conf_folder())):
        return config.from_node(compose("config", list(typed)))


def frames(folder: Path, template: str, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(numbered.picture(number)).save(folder / template.format(number + 1), quality=95)


def lists(root: Path, names: tuple[str, str], rows: list[str]) -> None:
    for name in names:
        (root / name).write_text("\n".join(rows) + "\n")


def test_activitynet(tmp_path: Path) -> None:
    for name, count in (("v_one", 20), ("v_two", 5)):
        frames(tmp_path / "frames" / name, "image_{:05d}.jpg", count)
    (tmp_path / "classInd.txt").write_text("\n".join(f"class {number}" for number in range(200)) + "\n")
    names = ("actnet_train_split.txt", "actnet_val_split.txt")
    lists(tmp_path, names, ["v_one,20,7,3", "v_two,5,199", "v_short,2,1"])
    typed = ("dataset=actnet", f"dataset.root={tmp_path}", "dataset.frame_size=48", "patch.size=32")
    with pytest.raises(UserError, match="2 of 10024 expected training videos"):
        build.data(composed(*typed))
    data = build.data(composed(*typed, "dataset.allow_partial=true"))
    assert data.found["evaluate"]["too_short"] == 1 and len(data.classes) == 200
    batch = collate([data.test[EVALUATION, 0], data.test[EVALUATION, 1]])
    assert batch.frames.shape == (2, 16, 48, 48, 3) and batch.frames.dtype == torch.uint8
    assert batch.labels.tolist() == [[3, 7, -1], [199, -1, -1]]
    seen = {tuple(data.train[epoch, 0].labels.tolist()) for epoch in range(12)}
    assert seen == {(3, 7, -1), (7, 3, -1)}


def test_mini_kinetics_paths_with_blanks(tmp_path: Path) -> None:
    frames(tmp_path / "riding a bike" / "x", "img_{:05d}.jpg", 9)
    (tmp_path / "minik_classInd.txt").write_text("\n".join(f"class {number}" for number in range(200)))
    lists(tmp_path, ("mini_train_videofolder.txt", "mini_val_videofolder.txt"), ["riding a bike/x 9 5"])
    data = build.data(composed("dataset=minik", f"dataset.root={tmp_path}", "dataset.frame_size=48", "patch.size=32"))
    item = data.test[EVALUATION, 0]
    assert item.frames.shape == (16, 48, 48, 3) and item.labels.tolist() == [5, -1, -1]


def test_a_missing_frame_counts_as_wrong_and_is_named(tmp_path: Path) -> None:
    frames(tmp_path / "a", "img_{:05d}.jpg", 9)
    (tmp_path / "a/img_00004.jpg").unlink()
    (tmp_path / "minik_classInd.txt").write_text("\n".join(f"class {number}" for number in range(200)))
    lists(tmp_path, ("mini_train_videofolder.txt", "mini_val_videofolder.txt"), ["a 9 5"])
    data = build.data(composed("dataset=minik", f"dataset.root={tmp_path}", "dataset.frame_size=48", "patch.size=32"))
    item = data.test[EVALUATION, 0]
    assert item.frames is None and "img_00004.jpg" in item.bad[0].reason


@pytest.mark.parametrize("pairs", [True, False], ids=["two gray files", "R and G of one"])
def test_optical_flow(tmp_path: Path, pairs: bool) -> None:
    """A segment of optical flow has ten channels: x and y of five consecutive flow fields."""
    folder = tmp_path / "HMDB51/images/a"
    folder.mkdir(parents=True)
    for number in range(1, 31):
        x, y = np.full((48, 64), number, np.uint8), np.full((48, 64), 100 + number, np.uint8)
        if pairs:
            Image.fromarray(x).save(folder / f"flow_x_{number:05d}.png")
            Image.fromarray(y).save(folder / f"flow_y_{number:05d}.png")
        else:
            Image.fromarray(np.stack((x, y, x), -1)).save(folder / f"flow_{number:05d}.png")
    (tmp_path / "HMDB51/splits").mkdir()
    (tmp_path / "HMDB51/splits/category.txt").write_text("\n".join(f"class {number}" for number in range(51)))
    lists(tmp_path / "HMDB51/splits", ("hmdb51_rgb_train_split_1.txt", "hmdb51_rgb_val_split_1.txt"), ["a 60 5"])
    template = "flow_{axis}_{:05d}.png" if pairs else "flow_{:05d}.png"
    typed = (
        "dataset.modality=flow",
        f"dataset.frame_template='{template}'",
        "dataset.count_divisor=2",
        "dataset.mean=[0.5]",
    )
    data = build.data(
        composed(
            "dataset=hmdb51",
            "method=recognizer",
            "init.from=file",
            f"dataset.root={tmp_path}",
            "dataset.frame_size=32",
            "dataset.allow_partial=true",
            "dataset.std=[0.226]",
            "segments.glance=4",
            *typed,
        )
    )
    frames = data.test[EVALUATION, 0].frames
    assert frames.shape == (4, 32, 32, 10)
    first = [3, 9, 16, 22]  # centers of four equal parts of the 26 possible starts; counted from 0, files from 1
    for segment, start in enumerate(first):
        expected = [value for step in range(5) for value in (start + step + 1, 100 + start + step + 1)]
        assert frames[segment, 0, 0].tolist() == expected
    flipped = data.train.view.training(frames[..., :2], np.random.default_rng(0), flip=True)
    assert flipped[0, 0, 0].tolist() == [255 - 4, 104]


def test_lists_without_a_class_file_have_numbered_classes(tmp_path: Path) -> None:
    """Without a file of class names (the lists of HMDB51 have none) the classes are numbered."""
    frames(tmp_path / "HMDB51/images/a", "img_{:05d}.jpg", 9)
    (tmp_path / "HMDB51/splits").mkdir()
    lists(tmp_path / "HMDB51/splits", ("hmdb51_rgb_train_split_1.txt", "hmdb51_rgb_val_split_1.txt"), ["a 9 50"])
    typed = (
        "dataset=hmdb51",
        "method=recognizer",
        "init.from=file",
        f"dataset.root={tmp_path}",
        "dataset.allow_partial=true",
    )
    with pytest.raises(UserError, match="null: classes are numbered"):
        build.data(composed(*typed))
    assert build.data(composed(*typed, "dataset.class_file=null")).classes == [str(number) for number in range(51)]
