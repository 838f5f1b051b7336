"""Tests of videos that are no files of a folder: shards, and data sets behind addresses; they give the same clips."""

from __future__ import annotations

import json
import shutil
import time
from copy import deepcopy
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from helpers import numbered
from helpers.configs import composed
from helpers.http_server import Site, serve

from adafocus import build
from adafocus.cli import main
from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.data.cache import BytesCache, MemoryCache
from adafocus.data.dataset import EVALUATION
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.data.packets import VideoError
from adafocus.data.remote import RemoteFiles
from adafocus.data.shards import ROW, ShardIndex, index_content, read_index

UNI = ("method=uni_adafocus", "segments.glance=2", "segments.focus=3", "patch.size=24", "patch.smallest=12")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with one broken training video and one broken validation video."""
    root = tmp_path_factory.mktemp("data") / "videos"
    for split, count in (("train", 3), ("val", 2)):
        for name in ("10", "9"):  # as numbers they would have another order
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                numbered.write(root / split / name / f"{number}.mp4", 12 + number, size=(48, 64))
    (root / "train/9/page.mp4").write_text("<html>")
    (root / "val/10/empty.mp4").write_bytes(b"")
    return root


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/adafocus/remote"


@cache
def settings(*typed: str) -> Config:
    fixed = ("dataset=folder", "dataset.frame_size=32", "dataset.max_bad_fraction=0.5", "dataset.root=http://host/x")
    return composed(*fixed, *(typed or ("method=adafocus_v2", "segments.glance=4", "patch.size=24")))


def data_of(root: object, *typed: str) -> build.Data:
    changed = deepcopy(settings(*typed))
    changed.dataset.root = str(root)
    return build.data(changed)


def same(one: build.Data, other: build.Data, unreadable: int) -> None:
    """Asserts that the clips of two data sets have equal bits, and what they count."""
    assert one.classes == other.classes
    for a, b in ((one.train, other.train), (one.test, other.test)):
        keys = [(EVALUATION if a is one.test else 5, index) for index in range(len(a))]
        assert [a.path(index) for _, index in keys] == [b.path(index) for _, index in keys]
        for key, ours, theirs in zip(keys, [a[key] for key in keys], b.__getitems__(keys), strict=True):
            assert (ours.frames is None) == (theirs.frames is None), key
            assert ours.frames is None or torch.equal(ours.frames, theirs.frames), key
            assert torch.equal(ours.labels, theirs.labels)
    bad = [index for index in range(len(other.test)) if other.test[EVALUATION, index].frames is None]
    assert len(bad) == unreadable and all("empty" in other.test.path(index) for index in bad)


def chosen(data: build.Data) -> list[torch.Tensor]:
    """The candidates that a second phase of reading asks for, of every readable evaluation video."""
    found = []
    for batch in Loader(data.test, EvaluationOrder(len(data.test), 2)):
        rows = batch.valid.nonzero()[:, 0]
        found += [*batch.frames, *batch.read(rows, torch.tensor([[0, 2, 5]] * len(rows)))]
    return found


def test_shards_hold_the_same_clips(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "shards"
    typed = ["prepare", "shard", str(root), str(out), "--workers", "1"]
    assert main(typed) == 1
    said = capsys.readouterr().out
    assert "page.mp4" in said and "empty.mp4" in said and "12 videos, 2 bad, in 1 shards" in said
    same(data_of(root), data_of(out), 1)
    assert all(torch.equal(a, b) for a, b in zip(chosen(data_of(root, *UNI)), chosen(data_of(out, *UNI)), strict=True))
    assert data_of(out).found["train"] | {"unreadable": 0} == data_of(root).found["train"] | {"unreadable": 0}
    # What was interrupted continues, and a torn shard is written again.
    shard = out / "shard-00000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    (out / "shards.json").unlink()
    assert main(typed) == 1 and shard.read_bytes() == whole


def test_an_index_of_a_stranger_leads_nowhere_else(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    assert main(["prepare", "shard", str(root), str(out), "--workers", "1"]) == 1
    content, rows = json.loads((out / "shards.json").read_text()), np.load(out / "index.npy")

    def refused(changes: dict[str, object], field: str = "", value: int = 0) -> None:
        (out / "shards.json").write_text(json.dumps(content | changes))
        changed = rows.copy()
        if field:
            changed[field][0] = value
        np.save(out / "index.npy", changed)
        with pytest.raises(UserError, match="index is damaged|leads out"):
            read_index(out)

    refused({"shards": [["../secret.tar", 10**9]]})
    refused({"shards": [["/etc/passwd", 10**9]]})
    refused({"shards": [["a/b.tar", 10**9]]})
    for field, value in (("shard", 7), ("start", 2**40), ("size", 2**63), ("end", 2**50)):
        refused({}, field, value)
    refused({"splits": {"train": [0, 10**6]}})
    refused({"classes": ["only"]})
    np.save(out / "index.npy", np.array([{"code": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        read_index(out)


def test_a_million_rows_are_there_at_once(tmp_path: Path) -> None:
    count = 1_000_000
    rows = np.zeros(count, ROW)
    rows["end"], rows["size"], rows["labels"] = 4 * np.arange(1, count + 1), 1, (0, -1, -1)
    rows["labels"][:, 0] = np.arange(count) % 400
    np.save(tmp_path / "index.npy", rows)
    np.save(tmp_path / "names.npy", np.full(4 * count, ord("a"), np.uint8))
    splits = {"train": (0, count - 10), "val": (count - 10, count)}
    text = index_content(
        [str(number) for number in range(400)], splits, [("shard-00000.tar", 100)], {5: "broken"}, None
    )
    (tmp_path / "shards.json").write_text(json.dumps(text))
    settings()
    started = time.process_time()
    data = data_of(tmp_path)
    seconds = time.process_time() - started
    assert len(data.train) == count - 11 and data.train.records[5].path == "aaaa" and len(data.test) == 10
    assert seconds < 2.0, seconds  # 0.2 on a quiet machine


@pytest.fixture
def site(root: Path) -> Site:
    pytest.importorskip("aiohttp")
    with serve(root.parent) as site:
        yield site


def test_class_folders_behind_http(root: Path, site: Site, kept: Path) -> None:
    ours = data_of(f"{site.address}/videos")
    # Files behind an address are not inspected: the broken one of the training set is replaced when it is read.
    assert len(ours.train) == 7 and len(ours.test) == 5
    local = data_of(root)
    assert ours.classes == local.classes == ["10", "9"]
    by_path = {local.test.path(index): index for index in range(5)}
    for item, index in zip(ours.test.__getitems__([(EVALUATION, n) for n in range(5)]), range(5), strict=True):
        other = local.test[EVALUATION, by_path[ours.test.path(index)]]
        assert (item.frames is None) == (other.frames is None)
        assert item.frames is None or torch.equal(item.frames, other.frames)
    asked = site.asked.total()
    ours.test[EVALUATION, 1]
    assert site.asked.total() == asked and list(kept.iterdir())  # it is in the cache


def test_shards_and_lists_behind_addresses(root: Path, site: Site, kept: Path) -> None:
    out = root.parent / "shards"
    assert main(["prepare", "shard", str(root), str(out), "--workers", "1"]) == 1
    same(data_of(root), data_of(f"{site.address}/shards"), 1)
    site.ranges = False
    shutil.rmtree(kept)
    item = data_of(f"{site.address}/shards").test[EVALUATION, 0]
    assert item.frames is None and "no byte ranges" in item.bad[0].reason
    memory = fsspec.filesystem("memory")
    names = [f"{split}/{name}/{n}.mp4" for split in ("train", "val") for name in ("10", "9") for n in range(2)]
    for name in names:
        memory.pipe(f"/set/{name}", (root / name).read_bytes())
    for split in ("train", "val"):
        rows = [f"{name} 12 {int('/9/' in name)}" for name in names if name.startswith(split)]
        memory.pipe(f"/set/{split}.txt", ("\n".join([*rows, f"{split}/9/gone.mp4 12 1"]) + "\n").encode())
    memory.pipe("/set/classes.txt", b"10\n9\n")
    data = data_of("memory://set")
    assert len(data.train) == 5 and len(data.test) == 5
    last = data.test[EVALUATION, 4]
    assert last.frames is None and "no such file" in last.bad[0].reason
    assert data.train[0, 4].bad[0].path == "train/9/gone.mp4"  # training reads another one and says so


def test_a_server_that_fails_and_stalls(root: Path, site: Site) -> None:
    name = "videos/val/10/0.mp4"
    site.failing[name] = 2
    files = RemoteFiles(timeout=5.0)
    assert files.read(f"{site.address}/{name}") == (root.parent / name).read_bytes() and site.asked[name] == 3
    site.failing["videos/val/10/1.mp4"] = 9
    with pytest.raises(VideoError, match=r"videos/val/10/1.mp4: cannot be fetched \(ClientResponseError: 503"):
        files.read(f"{site.address}/videos/val/10/1.mp4")
    site.stalling.add("videos/val/9/0.mp4")
    quick = RemoteFiles(timeout=0.5)
    started = time.monotonic()
    with pytest.raises(VideoError, match="cannot be fetched"):
        quick.read(f"{site.address}/videos/val/9/0.mp4")
    assert time.monotonic() - started < 15
    with pytest.raises(VideoError, match="no such file"):
        files.read(f"{site.address}/videos/gone.mp4")
    assert site.asked["videos/gone.mp4"] == 1  # another attempt would fail in the same way


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "local:///etc/passwd",
        "simplecache::http://127.0.0.1/a.mp4",
        "http://127.0.0.1/a.zip::file:///etc/passwd",
        "reference://x",
        "ssh://host/a.mp4",
        "HTTP://127.0.0.1/a.mp4",
    ],
)
def test_only_protocols_that_fetch_data_are_read(address: str) -> None:
    with pytest.raises(VideoError, match="only addresses of"):
        RemoteFiles().read(address)


def test_large_files_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafocus.data.remote.BLOCK", 1000)
    memory = fsspec.filesystem("memory")
    for size in (0, 999, 1000, 1001, 3500):
        memory.pipe("/large/a.bin", bytes(range(256)) * 20)
        memory.pipe("/large/a.bin", (bytes(range(256)) * 20)[:size])
        assert len(RemoteFiles().read("memory://large/a.bin")) == size


def test_caches_keep_their_limits(tmp_path: Path) -> None:
    cache = BytesCache(tmp_path / "kept", 8000)
    for number in range(100):
        cache.put(str(number), bytes([number]) * 500)
        cache.get("0")  # is used all the time, so it stays
        assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 8000 + 1000
    assert cache.get("0") == bytes(500) and cache.get("99") == bytes([99]) * 500 and cache.get("50") is None
    cache.put("large", bytes(2000))
    assert cache.get("large") is None
    memory = MemoryCache(1000)
    for number in range(10):
        memory.put(str(number), bytes(300))
    assert memory.get("9") and memory.get("6") is None


def test_frame_folders_are_not_read_from_addresses() -> None:
    with pytest.raises(UserError, match="no frame folders"):
        data_of("memory://x", *UNI, "dataset.frame_template='img_{:05d}.jpg'")
    with pytest.raises(UserError, match="only addresses of"):
        data_of("file:///etc")


def test_rows_outside_a_hold_out(root: Path, tmp_path: Path) -> None:
    """Shards without validation videos are divided as the folder is."""
    shutil.copytree(root / "train", tmp_path / "set")
    assert main(["prepare", "shard", str(tmp_path / "set"), str(tmp_path / "out"), "--workers", "1"]) == 1
    one, other = data_of(tmp_path / "set"), data_of(tmp_path / "out")
    assert isinstance(read_index(tmp_path / "out"), ShardIndex)
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert [a.path(index) for index in range(len(a))] == [b.path(index) for index in range(len(b))]
