"""Tests of sweeps: a failed job does not stop the others, the same command continues, and the comparison is kept up
to date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers import runs

from adafocus import cli
from adafocus.core.errors import UserError
from adafocus.runs import sweep


@pytest.mark.slow
def test_a_failing_job_and_the_same_command_again(tmp_path: Path) -> None:
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("patch")]
    typed = ["-m", "patch=24,28", "seed=0,1", *small, "dataset.frame_size=26", "name=s"]
    output = runs.run(tmp_path, *typed, expect=1)
    folder = tmp_path / "multirun/s"
    names = [f"patch-{patch}_seed-{seed}" for patch in (24, 28) for seed in (0, 1)]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    states = {name: json.loads((folder / name / "status.json").read_text())["state"] for name in names}
    assert list(states.values()) == ["finished", "finished", "failed", "failed"]
    assert (
        "failed: " in output
        and "patch.size=28 is larger than dataset.frame_size=26" in (folder / "compare.md").read_text()
    )
    written = (folder / names[0] / "metrics.jsonl").stat().st_mtime_ns
    assert "--- job 1 of 4: patch-24_seed-0\n" in output
    assert re.search(r"--- job 3 of 4, (about \d+ min|less than a minute) left: patch-28_seed-0\n", output)
    again = runs.run(tmp_path, *typed, expect=1)
    assert "this run is finished" in again
    assert (folder / names[0] / "metrics.jsonl").stat().st_mtime_ns == written
    rows = (folder / "compare.csv").read_text().splitlines()
    assert rows[0].startswith("variant,metric,score_mean,score_std,seeds") and rows[1].split(",")[4] == "2"


@pytest.mark.slow
def test_a_job_that_is_killed_is_listed_and_the_next_one_runs(tmp_path: Path) -> None:
    # A data set that is too large to allocate imitates a device that is out of memory.
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("dataset.train")]
    typed = ["-m", "dataset.train_videos=9999999999999,48", *small, "name=s"]
    output = runs.run(tmp_path, *typed, expect=1)
    folder = tmp_path / "multirun/s"
    bad, good = folder / "dataset.train_videos-9999999999999", folder / "dataset.train_videos-48"
    assert json.loads((bad / "status.json").read_text())["state"] == "failed"
    assert runs.summary(good)["state"] == "finished"
    assert f"failed: {bad}" in output and "dataset.train_videos" in (folder / "compare.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_side_by_side_end_as_jobs_in_a_row(tmp_path: Path, launcher: str) -> None:
    """A parallel launcher gives the comparison, list of failures and exit status of a sequential sweep."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    small = [item for item in runs.arguments(schedule__epochs="1") if not item.startswith("patch")]
    typed = ["-m", f"hydra/launcher={launcher}", *small, "name=s"]
    output = runs.run(tmp_path, *typed, "patch.size=16,200", expect=1)
    folder = tmp_path / "multirun/s"
    assert runs.summary(folder / "patch-16")["state"] == "finished"
    # Once in the table and once below it.
    assert output.count("failed: ") == 2 and f"failed: {folder / 'patch-200'}" in output
    assert "patch.size=200 is larger" in (folder / "compare.md").read_text()
    assert (folder / "compare.png").is_file() and "comparison: " in output
    assert not list(folder.glob(".*.part")) and not (folder / ".jobs").exists()


@pytest.mark.slow
def test_a_parallel_sweep_without_a_good_job_fails(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    output = runs.apart(tmp_path, "-m", "hydra/launcher=joblib", "patch.size=200,300", "name=s", expect=1)
    assert [line for line in output.splitlines() if line.startswith("failed: ")] == [
        f"failed: {tmp_path}/multirun/s/patch-{size}" for size in (200, 300)
    ]


@pytest.mark.slow
def test_a_search_gets_the_scores(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2", "name=s"]
    output = runs.run(tmp_path, "-m", *search, "schedule.lr=interval(0.01,0.1)", *runs.arguments(schedule__epochs="1"))
    found = yaml.safe_load((tmp_path / "multirun/s/optimization_results.yaml").read_text())
    scores = [runs.summary(folder)["score"] for folder in (tmp_path / "multirun/s").glob("lr-*")]
    assert found["best_value"] == max(scores) and len(scores) == 2 and "job 2 of 2" in output


def test_a_job_returns_its_score_and_one_of_many_leaves_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Hydra's basic launcher a job returns its score, and a failed one is recorded; the jobs only write a
    summary."""
    returned = []

    class Watched(sweep.Jobs):
        def job(self, node: object) -> float | None:
            returned.append(super().job(node))
            return returned[-1]

    @contextmanager
    def begin(node: SimpleNamespace, folder: Path, *_: object) -> Iterator[object]:
        if node.seed == 2:
            raise UserError("a mistake")
        yield node

    def launch(folder: Path, settings: SimpleNamespace) -> int:
        (folder / "summary.json").write_text(
            json.dumps({"state": "finished", "score": 10.0 + settings.seed, "cost": {"total": 1}})
        )
        return 0

    monkeypatch.setattr(sweep, "Jobs", Watched)
    monkeypatch.setattr(sweep, "begin", begin)
    monkeypatch.setattr(sweep, "launch", launch)
    monkeypatch.setattr("sys.argv", ["x"])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "-m", "seed=1,2,3", "name=s"]) == 1
    assert returned == [11.0, None, 13.0]
    assert cli.main(["run", "seed=1", "name=one"]) == 0 and returned[3] == 11.0
    assert cli.main(["run", "seed=2", "name=two"]) == 2 and not (tmp_path / "outputs/two/status.json").exists()


@pytest.mark.parametrize(
    ("held", "mode", "checkpoint", "says"),
    [
        ("train", "evaluate", "outputs/r", "holds a job of mode=train"),
        ("train", "early_exit", "outputs/r", "holds a job of mode=train"),
        ("evaluate", "train", None, "holds a job of mode=evaluate"),
        ("evaluate", "early_exit", "outputs/r", "holds a job of mode=evaluate"),
        ("evaluate", "evaluate", "outputs/q", "holds mode=evaluate of checkpoint=outputs/r"),
        ("evaluate", "evaluate", "outputs/r", None),
        ("train", "train", None, None),
        ("train", "cost", None, None),
    ],
)
def test_a_job_is_not_written_over_another_one(
    tmp_path: Path, held: str, mode: str, checkpoint: str | None, says: str | None
) -> None:
    stored = {"mode": held, "checkpoint": None if held == "train" else "outputs/r", "dataset": {"root": None}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    node = SimpleNamespace(mode=mode, checkpoint=checkpoint, dataset=SimpleNamespace(root=None))
    if says is None:
        sweep.check_folder(tmp_path, node)
    else:
        with pytest.raises(UserError, match=says):
            sweep.check_folder(tmp_path, node)
