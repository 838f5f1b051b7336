"""The documentation site: MkDocs builds it without a warning, and no page needs another server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason=f'{package} is not installed (pip install "adafocus[docs]")')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    pages = {path.parent.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("index.html")}
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages == {".", *written}
    start = (tmp_path / "site/index.html").read_text()
    fetched = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?://[^\" >]+)", start)
    assert not fetched, fetched
    assert "register_logger" in (tmp_path / "site/reference/index.html").read_text()
