"""Tests that the golden cases of this repository are those that `tests/golden/make.py` makes of the complete ones."""

from __future__ import annotations

from pathlib import Path

from golden import make


def test_the_files_are_made_of_the_complete_cases(shared: Path) -> None:
    assert not make.differing(make.made(shared)), "run python tests/golden/make.py SHARED"


def test_there_is_a_file_for_every_case_and_no_other() -> None:
    assert sorted(path.stem for path in make.CASES.iterdir()) == sorted(make.KEPT)
