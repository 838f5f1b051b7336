"""Paths that take the short way through `below` are those that the long way returns unchanged."""

from __future__ import annotations

from unittest import mock

import pytest

from adafocus.core.errors import UserError
from adafocus.data import paths

TEXTS = [
    *("a", "a/b.mp4", "a b/c d.mp4", "v1.2/x-y_z", "-a/!b", "a/b/c/d", "a" * 200, "a" * 201, "~x/y"),
    *(
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a/.b",
        "a\tb",
        "a\nb",
        "a/\x7f",
        "ä/b",
        "\udcff",
        "a\x00",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_short_way_changes_nothing(text: str) -> None:
    def outcome() -> str:
        try:
            return paths.below(text, "list, line 1")
        except UserError as error:
            return f"error: {error}"

    with mock.patch.object(paths, "_PLAIN_LENGTH", -1):
        long_way = outcome()
    assert outcome() == long_way
