"""Tests of the table at the end of a run: names from files are printed literally, and early exit is one line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from adafocus.core.errors import UserError
from adafocus.runs.plots import exit_curves
from adafocus.runs.table import conclude, conclude_exits, show, show_exits
from adafocus.training.logger import log, start_logging

EVIL = "[/x][red]\x1b[2J\u202e[bold]"


def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


def summary(**changes: object) -> dict:
    rows = [{"name": EVIL, "score": 50.0, "cost": 1e6}]
    return {"protocol": EVIL, "metric": EVIL, "rows": rows, "data": {"evaluate": {}}, "picture": EVIL, **changes}


def test_brackets_and_control_codes_of_names_are_shown_as_they_stand() -> None:
    console = screen()
    show(Path("/out[/x]") / EVIL, summary(), console)
    text = console.file.getvalue()
    assert "\x1b" not in text and "\u202e" not in text and "[/x][red]\\x1b[2J" in text
    assert "run folder: /out[/x]/[/x][red]" in text


def test_one_sentence_says_what_came_out() -> None:
    rows = [
        {"name": "learned patch", "score": 93.5, "cost": 42e6},
        {"name": "random patch", "score": 80.0, "cost": 40e6, "behind": [5.0, 21.0]},
        {"name": "center patch", "score": 75.0, "cost": 40e6, "behind": [9.0, 27.0]},
    ]
    found = conclude({"metric": "top1", "rows": rows, "cost_whole_frames": 1e8})
    assert found == (
        "93.5 % top-1 at 42 % of the multiply-adds of whole frames; +13.5 points against random patch "
        "(95 % interval +5.0 to +21.0)"
    )
    assert conclude({"metric": "map", "rows": rows[:1]}) == "93.5 mAP at 42 M multiply-adds per video"


@pytest.mark.parametrize(
    "damaged", [{}, {"protocol": "x"}, summary(rows=3), summary(rows=[{"name": "a", "score": "b", "cost": 1}])]
)
def test_a_damaged_summary_is_one_line(damaged: dict) -> None:
    with pytest.raises(UserError, match="summary.json is damaged"):
        show(Path("x"), damaged, screen())


def test_log_lines_hold_no_control_codes(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    start_logging(tmp_path)
    log.info("class %s\nof %s", EVIL, "a")
    start_logging(None)
    said = capfd.readouterr().err + (tmp_path / "run.log").read_text()
    assert "\x1b" not in said and said.count("\\x1b") == 2 and "\nof a\n" in said


def exits(scores: list[float], seconds: float = 0.01) -> list[dict]:
    """Rows of an early-exit run: the full model, and one budget per score; the second budget has half of the cost."""
    shared = {"networks": 0.001, "differing": 0, "deviation": 0.0, "kept": None}
    rows = [{"name": "full model", "budget": None, "score": 90.0, "cost": 100e6, "seconds": 0.01, **shared}]
    for n, score in enumerate(scores):
        row = {"name": "confidence", "budget": n / 10, "score": score, "cost": (n + 1) * 25e6, "seconds": seconds}
        rows.append({**row, **shared, "kept": -29.69})
    return [{**row, "simulated": row["score"]} for row in rows]


def test_early_exit_ends_with_its_outcome() -> None:
    console = screen()
    show_exits(Path("x"), exits([70.0, 90.5, 91.0]), "top1", "one crop", console)
    line = "90.5 % at 50 % of the multiply-adds (confidence, budget 0.1): reaches the full model's 90.0 %"
    text = console.file.getvalue()
    assert line in text and "-2969" not in text
    assert conclude_exits(exits([70.0, 80.0, 80.0])).startswith("80.0 % at 50 % of the multiply-adds")
    assert "stays below the full model's 90.0 %" in conclude_exits(exits([70.0]))
    assert conclude_exits(exits([])) is None


def test_a_pause_of_the_machine_does_not_flatten_the_picture(tmp_path: Path, monkeypatch) -> None:
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (drawn.append(self), save(self, path)))
    rows = exits([70.0, 80.0, 90.0, 91.0])
    rows[1]["seconds"] = 0.195
    exit_curves(rows, "top1", tmp_path / "x.png")
    assert drawn[0].axes[1].get_xlim()[1] == 25.0 and "1 slower than 25 ms" in drawn[0].axes[1].get_title()
