from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adafocus.core.errors import UserError
from adafocus.runs.compare import main, write_comparison
from adafocus.runs.compare.render import pareto, to_csv, to_markdown, to_text
from adafocus.runs.compare.table import compare, find_runs, group


def make(
    folder: Path,
    *,
    patch: int = 96,
    seed: int = 0,
    score: float = 50.0,
    cost: int = 10**9,
    state: str = "finished",
    error: str | None = None,
    protocol: str = "one crop",
    **config,
) -> Path:
    folder.mkdir(parents=True)
    write = lambda name, value: (folder / f"{name}.json").write_text(json.dumps(value))  # noqa: E731
    write("status", {"state": state, "step": 1, "steps": 2, "error": error, "time": ""})
    write("config", {"patch": {"size": patch}, "seed": seed, "devices": seed + 1, "name": folder.name, **config})
    write("choices", {"patch": str(patch), "dataset": "glyphs"})
    if state == "finished":
        write(
            "summary",
            {
                "state": "finished",
                "metric": "top1",
                "protocol": protocol,
                "score": score,
                "cost": {"total": cost},
                "rows": [
                    {"name": "learned patch", "score": score, "cost": cost},
                    {"name": "random patch", "score": 20.0, "cost": cost // 2},
                ],
                "parameters": 1234,
                "seconds": {"train": 60.0},
                "seed": seed,
                "data": {"evaluate": {"found": 9, "expected": 10, "unreadable": 1}},
            },
        )
    return folder


def test_seeds_are_averaged_and_only_what_differs_is_a_column(tmp_path: Path) -> None:
    for seed, score in enumerate((50.0, 53.0, 56.0)):
        make(tmp_path / f"a{seed}", seed=seed, score=score)
    make(tmp_path / "b", patch=128, score=60.0, cost=2 * 10**9)
    table = compare(find_runs([tmp_path]))
    assert table.columns == ["patch"]
    small, large = table.rows
    assert (small.choices, small.mean, small.deviation) == ({"patch": "96"}, 53.0, 3.0)
    assert large.deviation is None and large.mean == 60.0
    assert "53.00 ± 3.00" in to_text([table]) and "9/10, 1 unreadable" in to_text([table])


def test_leaves_that_repeat_a_choice_are_left_out_and_others_kept(tmp_path: Path) -> None:
    for number, (patch, rate) in enumerate(((96, 1), (128, 1), (96, 2), (128, 2))):
        make(tmp_path / str(number), patch=patch, schedule={"lr": rate, "double": 2 * rate})
    assert sorted(compare(find_runs([tmp_path])).columns) == ["patch", "schedule.lr"]


def test_unfinished_and_damaged_runs_are_listed_not_averaged(tmp_path: Path) -> None:
    make(tmp_path / "good")
    make(tmp_path / "bad", patch=999, state="failed", error="out of memory")
    make(tmp_path / "torn")
    (tmp_path / "torn/summary.json").write_text('{"state": "fini')
    text = to_text([compare(find_runs([tmp_path]))])
    assert "failed: out of memory (bad)" in text and "unreadable: summary.json is damaged (torn)" in text
    assert text.count("finished") == 1


def test_scores_of_different_data_or_protocols_have_tables_of_their_own(tmp_path: Path, capsys) -> None:
    make(tmp_path / "a", dataset={"name": "yoga", "root": "/yoga"})
    make(tmp_path / "b", dataset={"name": "yoga", "root": "/yoga"}, protocol="ten crops", patch=128)
    make(tmp_path / "c", dataset={"name": "gestures", "root": "/g"}, patch=128)
    make(tmp_path / "d", dataset={"name": "gestures", "root": "/g"}, state="failed", error="no", patch=96)
    groups = [[run.folder.name for run in members] for members in group(find_runs([tmp_path]))]
    assert groups == [["c", "d"], ["a"], ["b"]]
    assert main([str(tmp_path), "--plot", str(tmp_path / "all.png"), "--markdown", str(tmp_path / "all.md")]) == 0
    text = capsys.readouterr().out
    assert text.count("data: ") == 3 and "protocol: ten crops" in text and text.count("failed: no") == 1
    assert (tmp_path / "all.md").read_text().count("| --- |\n") == 3
    assert main([str(tmp_path), "--mix-protocols"]) == 0
    assert "protocol" in capsys.readouterr().out.splitlines()[0].split()


def test_csv_holds_raw_numbers(tmp_path: Path) -> None:
    make(tmp_path / "a", score=100 / 3)
    make(tmp_path / "b", patch=128, state="failed", error="x, y")
    rows = list(csv.DictReader(to_csv(compare(find_runs([tmp_path]))).splitlines()))
    assert math.isclose(float(rows[0]["score_mean"]), 100 / 3) and rows[0]["cost"] == "1000000000"
    assert rows[1]["error"] == "x, y" and rows[1]["score_mean"] == ""


def test_variants_are_rows_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "a")
    table = compare(find_runs([tmp_path]), variants=True)
    assert [(row.variant, row.mean) for row in table.rows] == [("random patch", 20.0), ("learned patch", 50.0)]


def test_a_sweep_folder_gets_its_files(tmp_path: Path) -> None:
    make(tmp_path / "patch=96")
    write_comparison(tmp_path)
    make(tmp_path / "patch=128", patch=128, score=70.0, cost=5 * 10**9)
    write_comparison(tmp_path)
    assert "| 128 | 70.00 |" in (tmp_path / "compare.md").read_text()
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.part*"))


def test_a_sweep_without_a_finished_run_has_a_table_and_no_plot(tmp_path: Path) -> None:
    make(tmp_path / "a", state="failed", error="no")
    write_comparison(tmp_path)
    assert "failed: no" in (tmp_path / "compare.md").read_text() and not (tmp_path / "compare.png").exists()


def test_markdown_escapes_its_bars(tmp_path: Path) -> None:
    make(tmp_path / "a", state="failed", error="a | b\nc")
    assert "a \\| b c" in to_markdown([compare(find_runs([tmp_path]))])


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    assert pareto([(3, 5), (1, 4), (2, 3), (3, 6), (4, 6)]) == [(1, 4), (3, 6)]


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], [".", "--sort", "size"]])
def test_bad_arguments_are_one_line(tmp_path: Path, monkeypatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    if len(arguments) > 1:
        make(tmp_path / "a")
    with pytest.raises(UserError):
        main(arguments)


def test_it_starts_without_torch_and_matplotlib(tmp_path: Path) -> None:
    make(tmp_path / "a")
    code = (
        "import sys; from adafocus.cli import main; assert main(sys.argv[1:]) == 0;"
        "assert not {'torch', 'matplotlib', 'hydra', 'numpy'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0 and "50.00" in done.stdout, done.stderr


def test_the_same_run_twice_is_no_second_seed(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=0, score=40.0)
    make(tmp_path / "again", seed=0, score=60.0)
    make(tmp_path / "b", seed=1, score=42.0)
    rows = compare(find_runs([tmp_path])).rows
    assert sorted(len(row.scores) for row in rows) == [1, 2]


def test_evaluations_of_a_run_are_rows_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "a", mode="train")
    make(tmp_path / "e", mode="evaluate", seed=1)
    table = compare(find_runs([tmp_path]))
    assert table.columns == ["mode"] and len(table.rows) == 2


def early_exit(folder: Path, **config: object) -> Path:
    """Makes the folder of an early-exit run, whose rows are the full model, a baseline on whole frames and budgets."""
    make(folder, mode="early_exit", score=90.0, cost=10**9, **config)
    rows = [
        {"name": "full model", "score": 90.0, "cost": 10**9},
        {"name": "whole frames", "score": 88.0, "cost": 2 * 10**9},
    ]
    for n in range(1, 30):
        rows.append({"name": f"confidence {n / 10:g}", "score": min(90.0, 60.0 + 2 * n), "cost": n * 3 * 10**7})
        rows.append({"name": f"entropy {n / 10:g}", "score": min(89.0, 60.0 + 2 * n), "cost": n * 3 * 10**7})
    value = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**value, "rows": rows}))
    return folder


def test_budgets_of_early_exit_are_a_curve_of_one_row(tmp_path: Path) -> None:
    early_exit(tmp_path / "e")
    make(tmp_path / "a", mode="train", patch=128)
    table = compare(find_runs([tmp_path]))
    assert len(table.rows) == 2 and "90.0 at 45 % (450 M)" in to_text([table])
    assert [row.variant for row in compare(find_runs([tmp_path / "e"]), variants=True).rows] == [
        "full model",
        "whole frames",
    ]
    assert {name: len(points) for name, points in table.rows[0].curves.items() or table.rows[1].curves.items()} == {
        "confidence": 29,
        "entropy": 29,
    }


GARBAGE = [
    {"state": "finished"},
    {"state": "finished", "score": "high", "cost": {"total": 1}},
    {"state": "finished", "score": float("nan"), "cost": {"total": 1}},
    {"state": "finished", "score": 1, "cost": {"total": True}},
    {"state": "finished", "score": 1, "cost": 3},
    {"state": "finished", "score": 1, "cost": {"total": 1}, "rows": [1]},
    {"state": "finished", "score": 1, "cost": {"total": 1}, "rows": 5},
    {"state": "finished", "score": 1, "cost": {"total": 1}, "rows": [{"name": "x"}]},
    {"state": "finished", "score": 1, "cost": {"total": 1}, "seconds": [], "data": [1]},
    {"state": "finished", "score": 1, "cost": {"total": 1}, "parameters": "many"},
    {"state": "finished", "score": 10**400, "cost": {"total": 1}},
]


@pytest.mark.parametrize("summary", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_row_that_says_so(tmp_path: Path, summary: dict) -> None:
    make(tmp_path / "good")
    make(tmp_path / "odd", state="failed")
    (tmp_path / "odd/summary.json").write_text(json.dumps(summary))
    text = to_text([compare(find_runs([tmp_path]))])
    assert "unreadable" in text and "(odd)" in text and "50.00" in text
    write_comparison(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100000, '{"a":' * 3000 + "1" + "}" * 3000, "\x00", "[]", "3", "null"])
def test_files_of_any_content_are_no_traceback(tmp_path: Path, text: str) -> None:
    make(tmp_path / "good")
    for name in ("config", "choices", "status", "summary"):
        folder = make(tmp_path / name)
        (folder / f"{name}.json").write_text(text)
    assert "50.00" in to_text([compare(find_runs([tmp_path]))])


def test_text_of_others_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    evil = "\x1b[2J<img src=x onerror=alert(1)>[a](javascript:1)|$x^$"
    make(tmp_path / "a", protocol="=cmd|' /C calc'!A0" + evil, dataset={"name": evil})
    make(tmp_path / "b", dataset={"name": "=1+1"}, protocol="@x")
    make(tmp_path / "c", dataset={"name": "-2"}, protocol="\x9b31m\u202e", state="failed", error="\x1b]0;title\x07")
    write_comparison(tmp_path)
    written = (tmp_path / "compare.md").read_text(), (tmp_path / "compare.csv").read_text()
    shown = to_text([compare(members) for members in group(find_runs([tmp_path]))])
    for text in (*written, shown):
        assert not any(ord(character) < 32 and character != "\n" or 127 <= ord(character) < 160 for character in text)
        assert "\u202e" not in text
    assert "<img" not in written[0] and not re.search(r"(?<!\\)\]\(", written[0])
    for row in csv.reader(written[1].splitlines()):
        assert not any(cell[:1] in ("=", "@", "+") for cell in row)


def test_a_table_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(UserError, match="cannot write"):
        main([str(tmp_path), "--csv", str(tmp_path / "nowhere/x.csv")])


def test_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    """Two processes can write the comparison of the same folder at the same time."""
    make(tmp_path / "a")
    make(tmp_path / "b", patch=128)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: write_comparison(tmp_path, picture=False), range(64)))
    assert not list(tmp_path.glob(".*.part"))
