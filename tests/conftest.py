"""Fixtures that all test folders share."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

import adafocus

# Runs and commands that tests call in this process must not set its allocator to keep freed memory: over the whole
# suite that adds up to many gigabytes. Any variable of this family leaves the choice to the user; 0 is glibc's default.
os.environ.setdefault("MALLOC_PERTURB_", "0")


def shared_folder() -> Path | None:
    """The folder of complete golden cases and real videos, which are not in this repository (`ADAFOCUS_SHARED`)."""
    root = Path(os.environ.get("ADAFOCUS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of complete golden cases and real videos; a test that asks for it is skipped where it is absent."""
    root = shared_folder()
    if root is None:
        pytest.skip("no shared measurement data here (set ADAFOCUS_SHARED)")
    return root


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of AdaFocus V2 on synthetic videos; tests read it or work on a copy."""
    from helpers.runs import arguments

    return adafocus.train(*arguments(inline="true"), folder=tmp_path_factory.mktemp("runs") / "small")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the most slow tests first: CI gives whole files to two processes, and a long one at the end
    would leave a process without work."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-losses", action="store_true", help="write the curves of tests/golden/losses again")
