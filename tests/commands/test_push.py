"""Sharing: what `adafocus push` writes is loaded again to the same predictions, and what comes back is data."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import fsspec
import numpy as np
import pytest
import torch

import adafocus
from adafocus.checkpoints.shared import WEIGHTS
from adafocus.cli import main
from adafocus.core.errors import UserError
from adafocus.runs.card import model_card

FILES = {WEIGHTS, "config.json", "classes.txt", "protocol.json", "README.md"}


@pytest.fixture
def clip() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (8, 40, 48, 3), dtype=np.uint8)


def test_a_folder_predicts_what_the_run_predicts(small_run: Path, tmp_path: Path, clip: np.ndarray) -> None:
    shared = tmp_path / "shared"
    assert main(["push", str(small_run), str(shared)]) == 0
    assert {path.name for path in shared.iterdir()} == FILES
    expected = adafocus.load(small_run)(clip)
    found = adafocus.load(shared)(clip)
    assert (found.labels, found.logits, found.boxes) == (expected.labels, expected.logits, expected.boxes)
    assert main(["push", str(small_run), str(shared)]) == 0  # again, in the same place


def test_nothing_of_this_machine_is_shared(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    content = torch.load(run / "last.pt", weights_only=True)
    content["config"]["dataset"] |= {"root": "/home/me/secret", "train_list": "/home/me/secret.txt"}
    content["config"]["init"]["from"] = "/home/me/secret/run"
    content["config"]["backbone"]["weights"] = content["config"]["backbone"]["glance_weights"] = "/home/me/secret.pth"
    torch.save(content, run / "last.pt")
    assert main(["push", str(run), str(tmp_path / "shared")]) == 0
    for path in (tmp_path / "shared").iterdir():
        assert b"secret" not in path.read_bytes(), path.name


def test_the_card_says_score_protocol_data_cost_and_places(small_run: Path, tmp_path: Path) -> None:
    assert main(["push", str(small_run), str(tmp_path / "shared")]) == 0
    card = (tmp_path / "shared/README.md").read_text()
    summary = json.loads((small_run / "summary.json").read_text())
    low, high = summary["rows"][0]["interval"]
    said = (
        f"**{summary['score']:.1f} top-1 %** (95 % interval {low:.1f} to {high:.1f}) at 1.69 M multiply-adds per video."
    )
    for text in (
        said,
        summary["protocol"],
        "- evaluate: 13 videos of 13",
        "learned patch locations: standard deviation",
        "| focus |",
    ):
        assert text in card, text
    assert "## Intended use" in card and "glyph 9" in card and "random patch" in card
    evil = model_card({**summary, "name": "<script>x</script>"}, ["<img src=x>", "a|b"], "hf://a/b")
    assert "<script" not in evil and "<img" not in evil and "a\\|b" in evil and "load('hf://a/b')" in evil


def test_an_fsspec_address(small_run: Path, clip: np.ndarray, capsys) -> None:
    target = "memory://bucket/net"
    assert main(["push", str(small_run), target]) == 0
    assert {name.rpartition("/")[2] for name in fsspec.filesystem("memory").ls("/bucket/net", detail=False)} == FILES
    assert adafocus.load(target)(clip).logits == adafocus.load(small_run)(clip).logits
    with pytest.raises(UserError, match="memory://bucket/none cannot be read"):
        adafocus.load("memory://bucket/none")
    assert main(["push", str(small_run), "nosuch://bucket"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: nosuch://bucket") and error.count("\n") == 1


@pytest.fixture
def hub(monkeypatch, tmp_path: Path) -> list[dict[str, object]]:
    """A client of the Hub whose repositories are folders; the list holds its calls."""
    calls: list[dict[str, object]] = []
    place = tmp_path / "hub"

    class HfApi:
        def create_repo(self, **options: object) -> None:
            calls.append({"create": True, **options})
            (place / str(options["repo_id"])).mkdir(parents=True, exist_ok=True)

        def upload_folder(
            self, *, repo_id: str, folder_path: str, allow_patterns: list[str], revision: str | None
        ) -> None:
            calls.append({"revision": revision})
            for name in allow_patterns:
                shutil.copyfile(Path(folder_path) / name, place / repo_id / name)

    def hf_hub_download(*, repo_id: str, filename: str, revision: str | None) -> str:
        calls.append({"filename": filename, "revision": revision})
        if not (place / repo_id / filename).is_file():
            raise FileNotFoundError(f"404 {repo_id}")
        return str(place / repo_id / filename)

    module = ModuleType("huggingface_hub")
    module.HfApi, module.hf_hub_download = HfApi, hf_hub_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_a_repository_of_the_hub(
    small_run: Path, hub: list[dict[str, object]], clip: np.ndarray, tmp_path: Path
) -> None:
    assert main(["push", str(small_run), "hf://me/net"]) == 0
    assert hub[0] == {"create": True, "repo_id": "me/net", "private": True, "exist_ok": True}
    assert {path.name for path in (tmp_path / "hub/me/net").iterdir()} == FILES
    assert adafocus.load("hf://me/net@v1")(clip).logits == adafocus.load(small_run)(clip).logits
    assert hub[-1] == {"filename": WEIGHTS, "revision": "v1"}  # nothing else is fetched
    for wrong in ("hf://net", "hf://me/net/more", "hf://me/none"):
        with pytest.raises(UserError, match=wrong):
            adafocus.load(wrong)


def test_the_client_is_called_as_the_library_defines_it() -> None:
    from inspect import signature

    library = pytest.importorskip("huggingface_hub", reason='huggingface_hub is missing (pip install "adafocus[hub]")')
    create, upload = library.HfApi.create_repo, library.HfApi.upload_folder
    signature(create).bind(None, repo_id="a/b", private=True, exist_ok=True)
    signature(upload).bind(None, repo_id="a/b", folder_path="x", allow_patterns=["y"], revision=None)
    signature(library.hf_hub_download).bind(repo_id="a/b", filename="x", revision=None)


def test_a_missing_client_is_one_line(small_run: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install "adafocus\[hub\]"'):
        adafocus.load("hf://me/net")


def test_what_cannot_be_shared_is_refused(small_run: Path, tmp_path: Path, capsys) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert main(["push", str(run), str(foreign)]) == 2
    assert "does not hold a shared network" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    (run / "summary.json").unlink()
    assert main(["push", str(run), str(tmp_path / "x")]) == 2
    assert "has no score for the model card" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_what_comes_back_is_never_code(small_run: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    assert main(["push", str(small_run), str(shared)]) == 0
    (shared / "model.py").write_text("raise SystemExit")
    (shared / WEIGHTS).write_bytes((small_run / "last.pt").read_bytes())  # a pickle by another name
    with pytest.raises(UserError, match="damaged"):
        adafocus.load(shared)
