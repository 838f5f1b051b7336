"""Tests with small imitations of every official data set layout, from its annotation files to a training step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered
from helpers.configs import composed
from PIL import Image

from adafocus import build
from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.data.dataset import collate
from adafocus.data.extract import count_frames, extract_frames
from adafocus.data.official import clean_class, read_official
from adafocus.data.video import VideoError

SMALL = ("method=recognizer", "backbone=tiny", "backbone.focus_channels=[8,8]", "dataset.frame_size=32", "segments=4")


def video(path: Path, count: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return numbered.write(path, count)


def pictures(folder: Path, template: str, count: int = 9) -> None:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(numbered.picture(number)).save(folder / template.format(number))


def names(count: int) -> list[str]:
    return [f"class {number:03d}" for number in range(count)]


def kinetics(root: Path) -> None:
    classes = sorted([*names(397), 'pulling "rope"', "dancing (slowly)", "air drumming"])
    (root / "a").mkdir()
    (root / "a/kinetics_label_map.txt").write_text("\n".join(classes))
    head = "label,youtube_id,time_start,time_end,split\n"
    train = "dancing (slowly),abc_d,7,17,train\nclass 001,-x_y,12,22,train\nclass 002,gone,1,11,train\n"
    (root / "a/kinetics_train.csv").write_text(head + train)
    (root / "a/kinetics_val.csv").write_text(head + "air drumming,ghi,3,13,val\n")
    video(root / "v/train/part_0/abc_d_000007_000017.mp4")
    video(root / "v/train/part_1/-x_y_000012_000022.mp4")
    video(root / "v/val/air drumming/ghi_000003_000013.mp4")


def ucf101(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/classInd.txt").write_text("\n".join(f"{n + 1} Class{n:03d}" for n in range(101)))
    (root / "a/trainlist01.txt").write_text("Class002/v_Class002_g08_c01.avi 3\nClass000/v_Class000_g08_c01.avi 1\n")
    (root / "a/testlist01.txt").write_text("Class005/v_Class005_g01_c01.avi\n")
    for name in ("Class002/v_Class002_g08_c01", "Class000/v_Class000_g08_c01", "Class005/v_Class005_g01_c01"):
        video(root / f"v/{name}.mp4")


def hmdb51(root: Path) -> None:
    (root / "a").mkdir()
    for number in range(51):
        rows = (
            f"clip_{number}_a.avi 1 \nclip_{number}_b.avi 2 \nclip_{number}_c.avi 0 \n" if number < 2 else "x.avi 0 \n"
        )
        (root / f"a/class{number:02d}_test_split1.txt").write_text(rows)
    for name in ("clip_0_a", "clip_0_b", "clip_1_a", "clip_1_b"):
        video(root / f"v/{name}.mp4")


def sthv1(root: Path) -> None:
    (root / "a").mkdir()
    classes = something()
    (root / "a/something-something-v1-labels.csv").write_text("\n".join(reversed(classes)))
    (root / "a/something-something-v1-train.csv").write_text(f"100;{classes[3]}\n7;{classes[0]}\n")
    (root / "a/something-something-v1-validation.csv").write_text(f"55;{classes[173]}\n")
    for name in ("100", "7", "55"):
        pictures(root / "data/something-something-v1/20bn-something-something-v1" / name, "{:05d}.jpg")


def something() -> list[str]:
    pairs = ["Pulling something from left to right", "Pulling something from right to left"]
    pairs += ["Pushing something from left to right", "Pushing something from right to left"]
    pairs += [f"Turning the camera {side} while filming something" for side in ("left", "right")]
    return sorted([*names(168), *pairs])


def sthv2(root: Path) -> None:
    (root / "a").mkdir()
    classes = something()
    labels = {name: str(number) for number, name in enumerate(classes)}
    (root / "a/something-something-v2-labels.json").write_text(json.dumps(labels))
    template = "Pulling [something] from left to right"
    rows = [{"id": "11", "template": template, "label": "x"}, {"id": "12", "template": "class [001]", "label": "x"}]
    (root / "a/something-something-v2-train.json").write_text(json.dumps(rows))
    (root / "a/something-something-v2-validation.json").write_text(json.dumps([{"id": "13", "template": template}]))
    for name in ("11", "12", "13"):
        video(root / f"v/{name}.mp4")


def jester(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/jester-v1-labels.csv").write_text("\n".join(names(27)))
    (root / "a/jester-v1-train.csv").write_text("1;class 005\n2;class 006\n")
    (root / "a/jester-v1-validation.csv").write_text("3;class 026\n")
    for name in "123":
        pictures(root / "data/jester/20bn-jester-v1" / name, "{:05d}.jpg")


def actnet(root: Path) -> None:
    (root / "a").mkdir()
    every = {f"f{n:03d}": {"subset": "testing", "annotations": [{"label": f"class {n:03d}"}]} for n in range(200)}
    database = every | {
        "aaa": {"subset": "training", "annotations": [{"label": "class 007"}, {"label": "class 003"}]},
        "bbb": {"subset": "training", "annotations": [{"label": "class 009"}]},
        "ccc": {"subset": "validation", "annotations": [{"label": "class 199"}]},
    }
    (root / "a/activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))
    for name in ("v_aaa", "v_bbb", "v_ccc"):
        video(root / f"v/{name}.mp4")


def fcvid(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/classInd.txt").write_text("\n".join(names(239)))
    (root / "a/fcvid_train_split.txt").write_text("aa,300,4,7\nbb,200,0\n")
    (root / "a/fcvid_val_split.txt").write_text("cc,100,238\n")
    for name in ("aa", "bb", "cc"):
        video(root / f"v/{name}.mp4")


def minik(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/minik_classInd.txt").write_text("\n".join(names(200)))
    (root / "a/mini_train_videofolder.txt").write_text("some class/aa_1 300 4\nsome class/bb_2 200 0\n")
    (root / "a/mini_val_videofolder.txt").write_text("other class/cc_3 100 199\n")
    for name in ("aa_1", "bb_2", "cc_3"):
        video(root / f"v/{name}.mp4")


#: data set -> (imitation, training labels as the papers' repositories number them, training videos that are missing)
LAYOUTS = {
    "kinetics400": (kinetics, [[399 - 1], [2]], 1),
    "ucf101": (ucf101, [[2], [0]], 0),
    "hmdb51": (hmdb51, [[0], [1]], 0),
    "sthv1": (sthv1, [[3], [0]], 0),
    "sthv2": (sthv2, None, 0),
    "jester": (jester, [[5], [6]], 0),
    "actnet": (actnet, [[3, 7], [9]], 0),
    "fcvid": (fcvid, [[4, 7], [0]], 0),
    "minik": (minik, [[4], [0]], 0),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_from_annotations_to_a_training_step(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    imitate, labels, missing = LAYOUTS[dataset]
    imitate(tmp_path)
    root = tmp_path / "data"
    typed = ["prepare", dataset, str(root), "--annotations", str(tmp_path / "a"), "--workers", "2"]
    typed += ["--videos", str(tmp_path / "v")] if (tmp_path / "v").is_dir() else []
    assert main(typed) == (1 if missing else 0)
    printed = capsys.readouterr().out
    settings = composed(
        f"dataset={dataset}",
        f"dataset.root={root}",
        "dataset.allow_partial=true",
        "schedule.batch_size=2",
        "init.from=none",
        *SMALL,
    )
    data = build.data(settings)
    if labels is not None:
        assert [list(record.labels) for record in data.train.records] == labels
    assert len(data.train.records) == 2 and len(data.test) >= 1
    assert all(record.num_frames == (9 if dataset in ("sthv1", "jester") else 12) for record in data.train.records)
    if missing:
        lost = root / settings.dataset.train_list
        assert "gone_1" in lost.with_name(f"missing_{lost.name}").read_text() and "1 missing" in printed
    batch = collate([data.train[0, 0], data.train[0, 1]])
    assert batch.frames.shape == (2, 4, 32, 32, 3) and not batch.bad
    torch.manual_seed(0)
    stage = build.stage(settings, build.model(settings, len(data.classes)))
    stage.train()
    stage.step(batch).loss.backward()
    assert stage.model.head.weight.grad.abs().sum() > 0


def test_class_order_is_the_seeds(tmp_path: Path) -> None:
    kinetics(tmp_path)
    found = read_official("kinetics400", tmp_path / "a")
    assert clean_class('pulling "rope" (hard)') == "pulling_rope_hard"
    assert found.classes[0] == "air_drumming" and found.classes[-1] == "pulling_rope"
    assert found.splits["train"][0].folder == "dancing_slowly/abc_d_7"
    other = tmp_path / "sth"
    other.mkdir()
    sthv2(other)
    found = read_official("sthv2", other / "a")
    assert found.classes[found.splits["train"][0].labels[0]] == "Pulling something from left to right"


def test_flip_pairs_belong_to_names(tmp_path: Path) -> None:
    sthv1(tmp_path)
    assert main(["prepare", "sthv1", str(tmp_path / "data"), "--annotations", str(tmp_path / "a")]) == 0
    data = build.data(
        composed(
            "dataset=sthv1",
            f"dataset.root={tmp_path / 'data'}",
            "dataset.flip=0.5",
            "dataset.allow_partial=true",
            *SMALL,
        )
    )
    swap = data.train.view.flip_labels
    assert len(swap) == 6
    assert {data.classes[a].replace("left", "?").replace("right", "left").replace("?", "right") for a in swap} == {
        data.classes[b] for b in swap.values()
    }


def test_lists_of_video_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kinetics(tmp_path)
    typed = ["--annotations", str(tmp_path / "a"), "--videos", str(tmp_path / "v"), "--no-frames", "--check"]
    assert main(["prepare", "kinetics400", str(tmp_path / "data"), *typed]) == 1
    printed = capsys.readouterr().out
    assert "3 files, 0 bad" in printed
    overrides = next(line for line in printed.splitlines() if line.startswith("train with")).split()[4:-1]
    data = build.data(composed(*overrides, "method=recognizer", *SMALL))
    assert numbered.numbers(data.train[0, 0].frames.numpy()[:0]) == []
    assert data.train.records[0].path == "train/part_0/abc_d_000007_000017.mp4" and data.train[0, 0].frames is not None


def test_extraction_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    ucf101(tmp_path)
    typed = [
        "prepare",
        "ucf101",
        str(tmp_path / "d"),
        "--annotations",
        str(tmp_path / "a"),
        "--videos",
        str(tmp_path / "v"),
    ]
    assert main(typed) == 0
    frames = tmp_path / "d/UCF101/jpg"
    first = frames / "v_Class002_g08_c01"
    stamp = (first / "img_00001.jpg").stat().st_mtime_ns
    other = frames / "v_Class000_g08_c01"
    left = frames / ".extracting-x"  # a folder that a killed process has left
    left.mkdir()
    (left / "adafocus.lock").touch()
    other.rename(left / "frames")
    assert main(typed) == 0
    assert (first / "img_00001.jpg").stat().st_mtime_ns == stamp
    assert count_frames(other, "img_{:05d}.jpg") == 12 and not left.exists()


def test_extracted_frames_are_the_videos(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 40)
    assert extract_frames(path, tmp_path / "full", short_side=None) == 40
    images = np.stack([np.asarray(Image.open(tmp_path / f"full/img_{n:05d}.jpg")) for n in range(1, 41)])
    assert numbered.numbers(images) == list(range(40))
    extract_frames(path, tmp_path / "small", short_side=32, template="{:06d}.jpg")
    assert Image.open(tmp_path / "small/000040.jpg").size == (48, 32)
    (tmp_path / "bad.mp4").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError):
        extract_frames(tmp_path / "bad.mp4", tmp_path / "bad")
    assert not (tmp_path / "bad").exists() and not (tmp_path / "bad.part").exists()


def test_a_broken_video_is_listed_as_missing_with_its_reason(tmp_path: Path) -> None:
    ucf101(tmp_path)
    (tmp_path / "v/Class002/v_Class002_g08_c01.mp4").write_text("<html>")
    typed = [
        "prepare",
        "ucf101",
        str(tmp_path / "d"),
        "--annotations",
        str(tmp_path / "a"),
        "--videos",
        str(tmp_path / "v"),
    ]
    assert main(typed) == 1
    lost = (tmp_path / "d/UCF101/file_list/missing_ucf101_rgb_train_split_1.txt").read_text()
    assert lost.startswith("v_Class002_g08_c01\t") and "readable" in lost


@pytest.mark.parametrize(
    ("dataset", "file", "text", "message"),
    [
        (
            "kinetics400",
            "kinetics_train.csv",
            "label,youtube_id,time_start,time_end\nclass 001,x\n",
            "line 2: a row must be label",
        ),
        (
            "kinetics400",
            "kinetics_val.csv",
            "label,youtube_id,time_start,time_end\nno class,x,1,2\n",
            "line 2: class 'no class'",
        ),
        ("hmdb51", "class00_test_split1.txt", "clip.avi\n", "line 1: a row must be"),
        ("sthv1", "something-something-v1-train.csv", "1;nothing\n", "line 1: class 'nothing'"),
        ("sthv2", "something-something-v2-labels.json", '{"a": "0", "b": "2"}', "must be 0, 1, 2"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path: Path, dataset: str, file: str, text: str, message: str) -> None:
    LAYOUTS[dataset][0](tmp_path)
    (tmp_path / "a" / file).write_text(text)
    with pytest.raises(UserError, match=message):
        read_official(dataset, tmp_path / "a")


def test_a_missing_annotation_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classInd.txt"):
        read_official("ucf101", tmp_path)
    assert main(["prepare", "sthv9", str(tmp_path)]) == 2
