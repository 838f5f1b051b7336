"""Tests of `adafocus demo`: what it shows, and the page in a real browser from upload to label."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers import numbered
from helpers.browser import browser

from adafocus import predict
from adafocus.cli import main
from adafocus.commands.demo import look, page, serve
from adafocus.core.errors import UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered.write(tmp_path_factory.mktemp("videos") / "clip.mp4", 25)


def test_look(small_run: Path, clip: Path) -> None:
    predictor = predict.load(small_run, device="cpu")
    seen = look(predictor, clip, 0.5)
    expected = predictor(clip)
    assert list(seen.scores) == expected.labels[:5] and list(seen.scores.values()) == expected.scores[:5]
    assert seen.picture.ndim == 3 and seen.picture.shape[1] > 3 * 96  # frames side by side
    assert seen.lines[0].startswith(f"{expected.cost / 1e6:.1f} M multiply-adds, ")
    sure = [look(predictor, clip, value).lines[-1] for value in (0.0, 1.1)]
    steps = predictor.model.num_exits
    assert f"exit 1 of {steps}, " in sure[0] and f"exit {steps} of {steps}, {expected.labels[0]}, " in sure[1]
    with pytest.raises(UserError, match="gone"):
        look(predictor, clip.with_name("gone.mp4"))


def test_without_gradio_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["demo", "gone"]) == 2
    assert 'pip install "adafocus[demo]"' in capsys.readouterr().err


def test_in_a_browser(small_run: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file that is dropped to the label of two runs side by side; no request leaves the machine."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    predictor = predict.load(small_run, device="cpu")
    label = predictor(clip).labels[0]
    blocks = page({"one": predictor, "two": predictor})
    try:
        address = serve(blocks, "127.0.0.1", None, wait=False)
        with browser() as driver:
            driver.get(address)
            until = time.monotonic() + 60
            while not (found := driver.find_elements("css selector", "input[type=file]")):
                assert time.monotonic() < until, driver.page_source[:2000]
                time.sleep(0.1)
            found[0].send_keys(str(clip))
            while (text := driver.find_element("tag name", "body").text).count(label) < 2:
                assert time.monotonic() < until, text
                time.sleep(0.1)
            assert text.count("M multiply-adds, ") >= 2 and "exit " in text
            fetched = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
            assert [name for name in fetched if not name.startswith((address, "data:", "blob:"))] == []
    finally:
        blocks.close()
