"""Tests of the protocols: frame indices and crops equal those that the released programs compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from torch import Tensor

from adafocus.data.sampling import evaluation_frames, training_frames
from adafocus.data.transforms import (
    Normalize,
    crop_places,
    evaluation_views,
    mirror,
    multi_scale_places,
    multi_scale_sizes,
    resize,
    short_side_size,
)
from adafocus.data.view import View
from adafocus.evaluation.metrics import average_views, scores

NORMALIZE = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("segments", [3, 5, 8, 16])
def test_frames_of_tsm(segments: int) -> None:
    golden = Case("tsm_frame_sampling")
    table = {name: golden[name] for name in golden if name == "num_frames" or name.endswith(f"_s{segments}")}
    rng = np.random.default_rng(0)
    for row, frames in enumerate(table["num_frames"].tolist()):
        for rule, name in (("middle", "val"), ("uniform-1", "test"), ("twice", "twice"), ("dense-10", "dense_test")):
            found = evaluation_frames(frames, segments, rule, short="first_frame").ravel() + 1
            assert found.tolist() == table[f"{name}_s{segments}"][row].tolist(), (rule, frames)
        drawn = np.stack([training_frames(frames, segments, rng, short="first_frame") + 1 for _ in range(200)])
        low, high = table[f"train_low_s{segments}"][row], table[f"train_high_s{segments}"][row]
        assert (drawn >= low).all() and (drawn <= high).all()
        if (high - low).max() < 6:
            assert (drawn.min(0) == low).all() and (drawn.max(0) == high).all()
        starts = [training_frames(frames, segments, rng, rule="dense")[0] + 1 for _ in range(100)]
        low, high = table[f"dense_train_start_s{segments}"][row]
        assert low <= min(starts) and max(starts) <= high


def test_snippets_of_flow() -> None:
    golden = Case("tsm_frame_sampling")
    table = {name: golden[name] for name in ("num_frames", "flow_val_s8", "flow_test_s8")}
    for row, frames in enumerate(table["num_frames"].tolist()):
        for rule, name in (("middle", "val"), ("uniform-1", "test")):
            found = evaluation_frames(frames, 8, rule, short="first_frame", length=5).ravel() + 1
            expected = table[f"flow_{name}_s8"][row]
            if expected.min() < 1:  # the released index is below 1 if the video is shorter than a snippet; here it is 1
                expected = np.ones(8)
            assert found.tolist() == expected.tolist(), (rule, frames)


@pytest.mark.parametrize("segments", [8, 16])
def test_frames_of_tam(segments: int) -> None:
    table = Case("tam_protocol")
    rules = {"val_uniform": "middle", "val_dense": "dense-1"}
    for key in (key for key in table if key.endswith(f"_T{segments}")):
        name = key.removesuffix(f"_T{segments}")
        rule = rules.get(name, name.removeprefix("test_"))
        for frames, expected in zip(table["frames"].tolist(), table[key].tolist(), strict=True):
            found = evaluation_frames(frames, segments, rule, short="first_frame", window=None).ravel() + 1
            assert found.tolist() == expected, (key, frames)


@pytest.mark.parametrize(
    ("rule", "frames", "segments", "expected"),
    [
        ("uniform-1", 5, 8, [[0, 0, 1, 2, 2, 3, 4, 4]]),
        ("twice", 20, 4, [[2, 7, 12, 17], [0, 5, 10, 15]]),
        ("uniform-2", 20, 4, [[0, 5, 10, 15], [4, 9, 14, 19]]),
        ("dense-1", 100, 8, [[18, 26, 34, 42, 50, 58, 66, 74]]),
        ("dense-2", 9, 8, [[0, 8, 7, 6, 5, 4, 3, 2]] * 2),
    ],
)
def test_rules_on_paper(rule: str, frames: int, segments: int, expected: list[list[int]]) -> None:
    assert evaluation_frames(frames, segments, rule).tolist() == expected


def test_rules_that_do_not_exist() -> None:
    for rule in ("uniform", "dense", "dense-0", "uniform-x", "twice-2", "dense-random"):
        with pytest.raises(ValueError, match="unknown rule"):
            evaluation_frames(10, 4, rule)
    with pytest.raises(ValueError, match="at most 64"):
        evaluation_frames(100, 65, "dense-1")
    with pytest.raises(ValueError, match="crops"):
        View(segments=4, size=8, short_side=10, crops=4)
    with pytest.raises(ValueError, match="whole frames"):
        View(segments=4, size=8, short_side=10, crops=3, stretch=True)


def picture(name: str, shape: tuple[int, ...]) -> Tensor:
    planes = golden_weights.frames(f"tsm:picture:{name}", shape)
    return (127.5 + 50 * planes).round().clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def inputs(views: Tensor) -> np.ndarray:
    """Normalizes views (views, T, h, w, 3) and stacks them as the released programs do: (views * T * 3, h, w)."""
    return NORMALIZE(views).flatten(0, 2).numpy()


#: Tolerance for one gray level, which is 0.0175 after normalization: torch's resize and Pillow's round differently.
GRAY_LEVEL = 0.02


@pytest.mark.parametrize("name", ["land", "wide", "tall", "small"])
def test_views_of_tsm(name: str) -> None:
    table = Case("tsm_transforms")
    frames = picture(name, table.about["inputs"][f"tsm:picture:{name}"]["shape"])
    height, width = short_side_size(*frames.shape[1:3], 256)
    if f"{name}_scaled_size" in table:
        assert [width, height] == table[f"{name}_scaled_size"].tolist()
        for crops in (3, 5):
            for size in (224, 256):
                corners = [[left, top] for top, left in crop_places(height, width, size, crops)]
                assert corners == table[f"{name}_corners{crops}_{size}"].tolist()
    for crops, size in ((1, 224), (3, 224), (5, 224), (10, 224), (1, 256), (3, 256)):
        key = f"{name}_crop{crops}" + ("_full" if size == 256 else "")
        if f"{key}_grid" not in table:
            continue
        planes = inputs(evaluation_views(frames, size, 256, crops))
        table.check(f"{key}_grid", planes[:, 5::31, 3::31], GRAY_LEVEL, of=1.0)
        table.check(f"{key}_mean", planes.mean((1, 2)), GRAY_LEVEL, of=1.0)
    choices = table[f"{name}_train_choices"]
    full = frames.shape[1:3]
    ours = [multi_scale_places(*full, crop) for crop in multi_scale_sizes(*full, 224)]
    rows = [[row[0].width, row[0].height, *(value for box in row for value in (box.left, box.top))] for row in ours]
    assert rows == choices.tolist()
    for key in (key for key in table if key.startswith(f"{name}_train_") and key != f"{name}_train_choices"):
        row, corner, flip = map(int, key.split("_")[-3:])
        box = ours[row][corner]
        view = resize(frames[:, box.top : box.top + box.height, box.left : box.left + box.width], 224, 224)
        table.check(key, inputs((mirror(view) if flip else view)[None])[:, 5::31, 3::31], GRAY_LEVEL, of=1.0)


@pytest.mark.parametrize("name", ["landscape", "portrait", "exact"])
def test_views_of_tam(name: str) -> None:
    table = Case("tam_protocol")
    case = table.about["multi_scale_crop"][name]
    width, height = case["size_wh"]
    y, x = np.mgrid[:height, :width]
    frames = torch.from_numpy(
        np.stack(
            [
                np.stack(
                    (
                        (3 * x + 5 * y + 17 * i) % 256,
                        (x * y // 7 + 29 * i) % 256,
                        (16 * ((x // 8) ^ (y // 8)) + 40 * i) % 256,
                    ),
                    -1,
                )
                for i in range(2)
            ]
        ).astype(np.uint8)
    )
    table.check(
        f"{name}_full_res_3crop", inputs(evaluation_views(frames, 256, 256, 3))[:, ::16, ::16], GRAY_LEVEL, of=1.0
    )
    table.check(f"{name}_center_crop", inputs(evaluation_views(frames, 224, 256))[:, ::16, ::16], GRAY_LEVEL, of=1.0)
    w, h, left, top, flip = case["drawn (seed 0..3: w, h, x, y, flip)"][1]
    view = resize(frames[:, top : top + h, left : left + w], 224, 224)
    table.check(
        f"{name}_train_seed1", inputs((mirror(view) if flip else view)[None])[:, ::16, ::16], GRAY_LEVEL, of=1.0
    )


def test_flush_crops_reach_the_borders_in_both_shapes() -> None:
    assert crop_places(256, 341, 256, 3, flush=True) == [(0, 0), (0, 84), (0, 42)]
    assert crop_places(456, 256, 256, 3, flush=True) == [(0, 0), (200, 0), (100, 0)]
    assert crop_places(456, 256, 256, 3) == [(100, 0)] * 3  # as in the released code: three times the same crop


def test_a_mirror_turns_flow_around() -> None:
    flow = torch.tensor([10, 20], dtype=torch.uint8).expand(1, 2, 3, 2)
    assert mirror(flow)[0, 0, 0].tolist() == [245, 20]
    assert mirror(torch.full((1, 2, 3, 3), 10, dtype=torch.uint8)).unique().tolist() == [10]


def test_scores_of_views() -> None:
    table = Case("tsm_score_averaging")
    views = {"crop1": 1, "crop3_dense": 30, "crop3_twice": 6, "crop10": 10, "crop5": 5}
    for name, count in views.items():
        tsm = golden_weights.array(f"tsm:scores:{name}:tsm", (3 * count, 6)).view(3, count, 6)
        assert np.allclose(average_views(tsm).numpy(), table[f"{name}_tsm"], atol=1e-5), name


def test_probabilities_are_averaged_where_mmaction2_does_so() -> None:
    logits = torch.tensor([[[4.0, 0.0], [0.0, 3.0], [0.0, 3.0]]])
    assert average_views(logits, "probabilities").exp().sum().item() == pytest.approx(1.0)
    assert average_views(logits).argmax().item() == 1
    with pytest.raises(ValueError, match="median"):
        average_views(logits, "median")
    assert scores(average_views(logits, "probabilities"), torch.tensor([[1]]), torch.tensor([True]))["top1"] == 100.0
