"""What a start in a run folder means."""

from __future__ import annotations

from pathlib import Path

import pytest

from adafocus import config
from adafocus.core.errors import UserError
from adafocus.engine.files import read_json, write_json
from adafocus.engine.folder import CONTINUE, FINISHED, NEW, describe, inspect, lock


def test_new_continued_finished_and_refused(tmp_path: Path) -> None:
    assert inspect(tmp_path / "a", {"x": 1}, None) == NEW
    describe(tmp_path / "a", {"x": 1}, overrides=["x=1"], choices={"patch": "28"})
    assert read_json(tmp_path / "a/overrides.json") == ["x=1"]
    assert inspect(tmp_path / "a", {"x": 1}, {"x": 1}) == CONTINUE
    write_json(tmp_path / "a/summary.json", {"state": "finished"})
    assert inspect(tmp_path / "a", {"x": 1}, {"x": 1}) == FINISHED
    with pytest.raises(UserError, match="differs in deep.y, x"):
        inspect(tmp_path / "a", {"x": 2, "deep": {"y": 1, "z": 0}}, {"x": 1, "deep": {"y": 2, "z": 0}})


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(UserError, match="in use by another process"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_keys_that_are_newer_than_a_run_do_not_make_it_another(tmp_path: Path) -> None:
    values = {
        "dataset": {"name": "glyphs", "source": "glyphs", "flip": 0.0, "frame_size": 96},
        "method": {"name": "recognizer"},
        "backbone": {"glance": "tiny_glance", "focus": "tiny_focus"},
        "patch": {"size": 28},
        "segments": {"glance": 4},
        "stage": {"name": "joint"},
        "schedule": {"lr": 0.1, "epochs": 1, "batch_size": 8, "base_batch_size": 8},
    }
    full = config.identity(config.to_dict(config.from_dict(values)))
    assert config.stored_identity(values) == full
    assert config.stored_identity({**values, "gone": 1}) == {**values, "gone": 1}
    assert config.stored_identity(None) is None
