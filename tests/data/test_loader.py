from __future__ import annotations

import multiprocessing.util

import pytest
import torch

from adafocus.core.errors import UserError
from adafocus.data.dataset import Item
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder
from adafocus.data.video import VideoError


def flat(order: TrainOrder) -> list[list[int]]:
    return [[index for _, index in batch] for batch in order]


def test_a_step_is_the_same_clips_however_it_is_shared() -> None:
    whole = flat(TrainOrder(50, 12, seed=3))
    for world, parts in ((2, 1), (1, 3), (2, 2), (4, 3)):
        shares = [flat(TrainOrder(50, 12, parts=parts, rank=rank, world=world, seed=3)) for rank in range(world)]
        for step, expected in enumerate(whole):
            seen = [index for share in shares for part in range(parts) for index in share[step * parts + part]]
            assert sorted(seen) == sorted(expected)


def test_order_depends_on_epoch_and_seed_alone() -> None:
    order = TrainOrder(20, 5, seed=1)
    first = flat(order)
    order.start_at(1, 0)
    second = flat(order)
    order.start_at(0, 0)
    assert flat(order) == first != second
    assert flat(TrainOrder(20, 5, seed=2)) != first


def test_an_epoch_can_start_in_its_middle() -> None:
    order = TrainOrder(20, 5, parts=1, seed=1)
    whole = flat(order)
    order.start_at(0, 2)
    assert flat(order) == whole[2:]
    assert len(order) == 2


def test_balanced_epochs_have_as_many_clips_of_every_class_and_can_start_in_their_middle() -> None:
    classes = [0] * 14 + [1] * 4 + [5] * 2
    order = TrainOrder(20, 5, seed=1, classes=classes)
    whole = flat(order)
    chosen = [index for batch in whole for index in batch]
    counts = sorted(sum(classes[index] == label for index in chosen) for label in (0, 1, 5))
    assert counts == [6, 7, 7]
    assert {index for index in chosen if index >= 14} == set(range(14, 20))  # all clips of the rare classes
    assert max(chosen.count(index) for index in range(14)) == 1
    order.start_at(0, 2)
    assert flat(order) == whole[2:]
    order.start_at(1, 0)
    others = {index for batch in flat(order) for index in batch if index < 14}
    assert others != {index for index in chosen if index < 14}
    shares = [flat(TrainOrder(20, 4, rank=rank, world=2, seed=1, classes=classes)) for rank in (0, 1)]
    assert [index for both in zip(*shares, strict=True) for share in both for index in share] == chosen


def test_evaluation_sees_every_clip_once_without_padding() -> None:
    for world in (1, 2, 3):
        seen = [
            key[1] for rank in range(world) for batch in EvaluationOrder(11, 4, rank=rank, world=world) for key in batch
        ]
        assert sorted(seen) == list(range(11))


@pytest.mark.parametrize("arguments", [{"size": 4, "batch": 8}, {"size": 40, "batch": 9, "world": 2}])
def test_impossible_batches_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch of"):
        TrainOrder(**arguments)


class Stuck:
    """A data set whose items never arrive."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key):
        import time

        time.sleep(30)


class Dying(Stuck):
    def __getitem__(self, key):
        import os

        os._exit(3)


class Unreadable(Stuck):
    def __getitem__(self, key):
        raise VideoError("a.mp4: broken")


@pytest.mark.parametrize(
    ("clips", "workers", "says"),
    [
        (Stuck(), 1, "stuck or has died"),
        (Dying(), 1, "stuck or has died"),
        (Unreadable(), 1, "^a.mp4: broken$"),
        (Unreadable(), 0, "^a.mp4: broken$"),
    ],
)
def test_trouble_in_a_loader_process_is_one_line_and_no_hang(clips, workers: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        list(Loader(clips, TrainOrder(4, 2), workers=workers, timeout=1.0))


class Large(Stuck):
    """Clips of which one batch is larger than the largest file that the process may write, so shared memory fails."""

    def __getitem__(self, key):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return Item(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), key[1], key[0], [])


def test_full_shared_memory_is_one_line_at_once() -> None:
    with pytest.raises(UserError, match="--shm-size"):
        list(Loader(Large(), TrainOrder(4, 2), workers=1, timeout=60.0))


def test_a_long_temporary_folder_is_refused_at_once(tmp_path, monkeypatch) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: str(folder / "pymp-abcdefgh"))
    with pytest.raises(UserError, match=r"TMPDIR=.*is too long"):
        Loader(Stuck(), TrainOrder(4, 2), workers=1)
    Loader(Stuck(), TrainOrder(4, 2), workers=0)
