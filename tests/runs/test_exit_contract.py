"""`early_exit.lose`: a run chooses thresholds that keep the contract, on videos that are no training videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus.config.schema import EarlyExitConfig
from adafocus.core.errors import UserError
from adafocus.evaluation.exits import ALWAYS, NEVER
from adafocus.runs import job
from adafocus.runs.exit_contract import check_size, choose_budget, contract_line


def test_the_size_is_checked_before_anything_is_computed() -> None:
    options = EarlyExitConfig(lose=0.01, sure=0.95, calibration=0.5)
    check_size(options, 598)
    check_size(EarlyExitConfig(), 1)
    with pytest.raises(UserError, match="needs at least 299 calibration videos, and early_exit.calibration=0.5 of 597"):
        check_size(options, 597)


def test_the_cheapest_budget_that_keeps_the_contract() -> None:
    """Three budgets: nobody leaves early, sure videos do, all do; only the last one loses many."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1000, 1, dtype=torch.int64)
    values = torch.zeros(1000, 2, 3)
    values[:, 1, 0] = 5.0  # the full model is always right
    easy = torch.rand(1000, generator=generator) < 0.6
    values[easy, 0, 0], values[~easy, 0, 1] = 4.0, 2.0  # the first exit is sure and right, or unsure and wrong
    limits = [torch.tensor([limit, ALWAYS]) for limit in (ALWAYS, 3.0, NEVER)]
    training, costs = values[:100].amax(-1), torch.tensor([1.0, 3.0], dtype=torch.float64)
    valid = torch.ones(1000, dtype=torch.bool)
    valid[:50] = False
    options = EarlyExitConfig(lose=0.05, sure=0.95, calibration=0.4)
    found = choose_budget(options, limits, training, costs, values, labels, valid, seed=0)
    assert (found["chosen"], found["passed"], found["videos"], found["lost"]) == (1, 2, 380, 0)
    assert found["others"]["videos"] == 570 and found["others"]["lost"] == 0
    assert found["thresholds"] == limits[1].tolist() and 1.5 < found["others"]["cost"] < 2.1
    assert "loses 0.00 % of 570 other videos" in contract_line({**found, "budget": 1.0})
    nothing = choose_budget(options, limits[:1], training, costs, values, labels, valid, seed=0)
    assert nothing["chosen"] is None and "use the full model" in contract_line({**nothing, "budget": None})


@pytest.mark.slow
def test_a_run_reports_its_contract(tmp_path: Path) -> None:
    typed = runs.arguments(schedule__epochs="1", dataset__val_videos="40")
    for name, more in (("a", ()), ("b", ("mode=early_exit", f"checkpoint={tmp_path / 'a'}"))):
        (tmp_path / name).mkdir()
        options = ("early_exit.lose=0.4", "early_exit.runs=1", "early_exit.criteria=[confidence]") if more else ()
        assert job.run(tmp_path / name, composed(*typed, *more, *options)) == 0
    report = json.loads((tmp_path / "b/early_exit.json").read_text())
    contract = report["contract"]
    assert contract["videos"] == 20 and contract["p_value"] <= 0.05
    [row] = [row for row in report["rows"] if row["budget"] == contract["budget"]]
    assert row["score"] is not None and row["thresholds"] == contract["thresholds"] and row["differing"] == 0
