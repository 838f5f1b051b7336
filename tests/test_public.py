"""Tests of the names that `import adafocus` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import runs

import adafocus


def test_every_public_name_is_there_documented_and_imported_late() -> None:
    code = (
        "import sys, adafocus; adafocus.register_method; adafocus.register_policy; assert 'torch' not in sys.modules; "
        "adafocus.compose('patch=24'); assert 'torch' not in sys.modules; from adafocus import *"
    )
    subprocess.run([sys.executable, "-c", code], env=runs.environment(), check=True)
    assert sorted(name for names in adafocus._HOMES.values() for name in names) == sorted(adafocus.__all__)
    assert all(getattr(adafocus, name).__doc__ and name in dir(adafocus) for name in adafocus.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        adafocus.nothing  # noqa: B018


def test_compose_gives_what_a_run_would_have() -> None:
    assert adafocus.compose("schedule.epochs=7").schedule.epochs == 7
    with pytest.raises(adafocus.UserError, match="did you mean schedule.epochs"):
        adafocus.compose("epochs=7")


@pytest.mark.slow
def test_train_load_evaluate(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    typed = runs.arguments(schedule__epochs="1")
    folder = adafocus.train(*typed, folder=tmp_path / "a run, mine")
    assert folder == tmp_path / "a run, mine" and runs.summary(folder)["state"] == "finished"
    assert adafocus.train(*typed, folder=folder) == folder  # the run is finished, so training returns at once
    found = adafocus.evaluate(folder, "loader.workers=0", "device=cpu")
    assert found["score"] == runs.summary(folder)["score"] and (tmp_path / "outputs").is_dir()
    model = adafocus.load(folder).model
    import torch

    assert model(torch.zeros(1, 4, 3, 32, 32)).logits.shape == (1, 10)
    with pytest.raises(adafocus.UserError, match="holds a run of another configuration"):
        adafocus.train(*typed, "seed=3", folder=folder)
