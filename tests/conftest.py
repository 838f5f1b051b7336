"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The measurement data beside the checkout (golden cases, real videos); tests skip where it is absent."""
    root = Path(os.environ.get("ADAFOCUS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not root.is_dir():
        pytest.skip("no shared measurement data here (set ADAFOCUS_SHARED)")
    return root
