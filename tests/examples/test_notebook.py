"""The notebook for own videos, executed from the first cell to the last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/own_videos.ipynb"


def test_own_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    paths = [str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is stored without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "\n".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert " on 4 held-out clips" in said and " s: " in said and " windows, " in said
    assert said.count(".mp4") == 6 and (tmp_path / "run/report.html").is_file()
