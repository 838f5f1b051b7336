"""`adafocus arena`: its plan, its processes and its table, on run folders that a small script writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adafocus import cli
from adafocus.core.errors import UserError
from adafocus.core.files import write_json
from adafocus.processes.signals import Interrupted
from adafocus.runs.arena import processes
from adafocus.runs.arena.entrants import BASELINE, ENTRANTS, Entrant
from adafocus.runs.arena.plan import Costs, Trial, parse_budget, plan
from adafocus.runs.arena.processes import Step
from adafocus.runs.arena.result import as_json, markdown, plot, rows_of
from adafocus.runs.predictions import write_predictions

SHARED = ["dataset=glyphs", "dataset.frame_size=48", "patch=24"]


def test_every_entrant_composes_and_costs_more_with_each_value() -> None:
    for entrant in ENTRANTS:
        on_tsm = ["backbone=tiny_tsm"] if "policy=two" in entrant.overrides else []
        costs = Costs([*SHARED, "segments=8", *on_tsm], 10)
        values = (24, 32) if entrant.key == "patch.size" else entrant.values[3:8:4]
        small, large = (costs.of((*entrant.overrides, f"{entrant.key}={value}")) for value in values)
        assert small is not None and large is not None
        assert small < large and list(entrant.values) == sorted(entrant.values), entrant.name


def test_the_setting_nearest_to_the_budget_is_chosen_if_it_is_near(tmp_path: Path) -> None:
    costs, said = Costs(SHARED, 10), []
    patch = Entrant("center", ("method=adafocus_v2", "method.where=center"), values=(24, 32, 40, 4096))
    price = {size: costs.of((*patch.overrides, f"patch.size={size}")) for size in (24, 32, 40)}
    trials = plan([patch], [round(0.95 * price[32])], 2, costs, tmp_path, said.append)
    assert [(trial.setting, trial.cost, trial.seed) for trial in trials] == [
        ("patch.size=32", price[32], 0),
        ("patch.size=32", price[32], 1),
    ]
    assert not plan([patch], [round(1.2 * price[40])], 1, costs, tmp_path, said.append)
    assert said.pop().startswith("center: no patch.size for ") and not said
    wrong = Entrant("wrong", ("method=nothing",))
    assert len(plan([wrong, patch], [price[32]], 1, costs, tmp_path, said.append)) == 1 and "left out" in said[0]
    with pytest.raises(UserError, match="method=nothing"):
        plan([wrong], [10**7], 1, costs, tmp_path, said.append)


def test_early_exit_gets_the_budget_that_its_mean_cost_meets(tmp_path: Path) -> None:
    costs = Costs([*SHARED, "segments=4", "device=cpu"], 10)
    entrant = replace(next(entrant for entrant in ENTRANTS if entrant.name == "FrameExit"), values=(1, 2, 4, 5))
    frame = costs.of((*entrant.overrides, "segments.glance=1"))
    (trial,) = plan([entrant], [2 * frame], 1, costs, tmp_path, [].append)
    assert trial.setting == "segments.glance=4" and trial.cost == 2 * frame and "seed=0" in trial.first.overrides
    evaluation = trial.first.then
    assert trial.folder == evaluation.folder != trial.first.folder and "device=cpu" in evaluation.overrides
    (typed,) = [one for one in evaluation.overrides if one.startswith("early_exit.budgets=")]
    q = float(typed.split("[")[1].rstrip("]"))
    weights = [q**step for step in (1, 2, 3, 4)]  # clips that leave after so many frames, see `wanted_shares`
    assert sum(n * weight for n, weight in enumerate(weights, 1)) / sum(weights) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(("text", "value"), [("20M", 20_000_000), ("1.5G", 1_500_000_000), ("800", 800)])
def test_budgets(text: str, value: int) -> None:
    assert parse_budget(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1M", "20m", "M"])
def test_wrong_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--budgets"):
        parse_budget(text)


def trial(folder: Path, name: str, seed: int, also: dict[str, str] | None = None) -> Trial:
    entrant = Entrant(name, (), also=also or {})
    return Trial(entrant, 10**7, seed, "patch.size=8", 9 * 10**6, Step(folder / f"{name}-{seed}", ()))


def write_run(folder: Path, guesses: list[int], constant: list[int], labels: list[int]) -> None:
    folder.mkdir(parents=True)
    logits = {"learned patch": guesses, "constant patch": constant}
    scores = {name: torch.nn.functional.one_hot(torch.tensor(values), 2).float() for name, values in logits.items()}
    write_predictions(folder, [f"{i}.mp4" for i in range(4)], ["a", "b"], torch.tensor(labels)[:, None], scores, {})
    rows = [{"name": name, "score": 0.0, "cost": 100 + i} for i, name in enumerate(logits)]
    summary = {"state": "finished", "score": 50.0, "metric": "top1", "protocol": "one clip", "rows": rows}
    write_json(folder / "summary.json", {**summary, "seconds": {"per_video": 0.01}})


def test_rows_average_seeds_and_compare_with_whole_frames(tmp_path: Path) -> None:
    labels = [0, 1, 0, 1]
    trials = [trial(tmp_path, BASELINE, 0)]
    trials += [trial(tmp_path, "learned", seed, {"constant patch": "constant place"}) for seed in (0, 1, 2)]
    write_run(trials[0].folder, [0, 0, 0, 0], [0, 0, 0, 0], labels)
    write_run(trials[1].folder, [0, 1, 0, 1], [1, 1, 1, 1], labels)
    write_run(trials[2].folder, [0, 1, 0, 0], [1, 1, 1, 1], labels)
    rows = rows_of(trials)  # the third seed is not finished
    assert [(row.name, row.score.mean, len(row.right), row.cost) for row in rows] == [
        (BASELINE, 50.0, 1, 9 * 10**6),
        ("learned", 87.5, 2, 9 * 10**6),
        ("constant place", 50.0, 2, 101),
    ]
    assert rows[0].gain is None and rows[1].gain is not None and rows[1].gain.mean == 37.5
    assert rows[1].equal and not rows[2].equal and rows[2].gain is None
    text = markdown(rows, ["one clip"])
    assert "| learned | 10 M | patch.size=8 | 87.5 (" in text and "| +37.5 (" in text
    assert "| 101 * |" in text and "* more than 10 % from the budget" in text
    assert json.loads(json.dumps(as_json(rows)))[1]["scores"] == [100.0, 75.0]
    plot(rows, tmp_path / "arena.png")
    assert (tmp_path / "arena.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_go_beside_each_other_survive_failures_and_are_not_repeated(tmp_path: Path, monkeypatch) -> None:
    steps = [Step(tmp_path / f"way-{number}", (), Step(tmp_path / f"way-{number}-exits", ())) for number in range(4)]
    for folder in (steps[0].folder, steps[0].last.folder, steps[1].folder):
        write_run(folder, [0] * 4, [0] * 4, [0] * 4)
    started = []
    script = "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); "
    script += "(p / 'summary.json').write_text(json.dumps({'state': 'finished', 'score': 75.0}))"

    def start(one: Step) -> subprocess.Popen[bytes]:
        started.append(one.folder.name)
        log = processes._log(one)
        log.parent.mkdir(exist_ok=True)
        log.write_text("error: no memory\n")
        fails = one.folder.name == "way-2"
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)" if fails else script, one.folder])

    monkeypatch.setattr(processes, "_start", start)
    said: list[str] = []
    ended: list[int] = []
    failed = processes.run(steps, jobs=2, say=said.append, ended=lambda: ended.append(len(said)))
    assert [step.folder.name for step in failed] == ["way-2"]
    assert sorted(started) == ["way-1-exits", "way-2", "way-3", "way-3-exits"]
    assert said[0] == "1 of 4 runs are finished already" and ended == [2, 3, 4]
    assert any(line.endswith("way-2: failed: error: no memory") for line in said)
    assert any(line.endswith("way-3-exits: score 75.0") for line in said)
    started.clear()
    processes.run(steps, jobs=1, say=said.append)
    assert started == ["way-2"]


def test_a_signal_asks_the_running_steps_once_to_end(tmp_path: Path, monkeypatch) -> None:
    script = "import pathlib, signal, sys, time\n"
    script += "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit(143)))\n"
    script += "pathlib.Path(sys.argv[2]).touch()\ntime.sleep(60)"
    asked, ready = tmp_path / "asked", tmp_path / "ready"

    def start(one: Step) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", script, asked, ready], start_new_session=True)
        while not ready.exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(processes, "_start", start)
    with pytest.raises(Interrupted, match="SIGTERM"):
        processes.run([Step(tmp_path / "one", ()), Step(tmp_path / "two", ())], jobs=1, say=[].append)
    assert asked.exists()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["glyphs", "--seeds", "0"], "--seeds and --jobs must be at least 1"),
        (["glyphs", "--only", "V9"], "is part of no entrant's name"),
        (["glyphs", "other"], "is not an override"),
        (["/nowhere"], "/nowhere"),
        (["glyphs", "--budgets", "x"], "--budgets"),
    ],
)
def test_wrong_arguments_are_one_line(typed: list[str], says: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["arena", *typed]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
