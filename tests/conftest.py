"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import adafocus


def shared_folder() -> Path | None:
    """The folder of measurement data (complete golden cases, real videos), which is no part of the repository."""
    root = Path(os.environ.get("ADAFOCUS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The measurement data beside the checkout; tests skip where it is absent."""
    root = shared_folder()
    if root is None:
        pytest.skip("no shared measurement data here (set ADAFOCUS_SHARED)")
    return root


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of AdaFocus V2 on drawn videos; tests read it or work on a copy."""
    from helpers.runs import arguments

    return adafocus.train(*arguments(inline="true"), folder=tmp_path_factory.mktemp("runs") / "small")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-losses", action="store_true", help="write the curves of tests/golden/losses again")
