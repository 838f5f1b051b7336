"""predictions.csv: one row a video, unreadable ones named, and names of strangers read back unchanged."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from adafocus.core.errors import UserError
from adafocus.runs.predictions import FILE, read_predictions, write_predictions

CLASSES = ["=HYPERLINK(1)", "<script>", "b, c"]
PATHS = ["a.mp4", "-b\n.mp4", "c.mp4"]
LABELS = torch.tensor([[0, -1, -1], [1, 2, -1], [2, -1, -1]])


def write(folder: Path) -> None:
    main = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    logits = {"learned patch": main, "random patch": main.flip(1)}
    write_predictions(folder, PATHS, CLASSES, LABELS, logits, {1: "no frames"}, exits=torch.tensor([0, -1, 3]))


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path)
    first, bad, wrong = read_predictions(tmp_path)
    assert [row.path for row in (first, bad, wrong)] == PATHS
    assert first.right and first.labels == CLASSES[:1] and first.exit == 0
    assert [name for name, _ in first.top] == CLASSES
    assert first.top[0][1] == pytest.approx(torch.tensor([3.0, 1.0, 0.0]).softmax(0)[0].item(), abs=1e-5)
    assert first.controls == {"random patch": "b, c"}
    assert (bad.error, bad.labels, bad.top, bad.exit, bad.right) == ("no frames", CLASSES[1:], [], None, False)
    assert not wrong.right and wrong.top[0][0] == "<script>" and wrong.exit == 3


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / FILE).open(newline="") as file:
        rows = list(csv.reader(file))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert rows[0][:5] == ["path", "label", "labels", "prediction", "probability"]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    assert read_predictions(tmp_path) == []
    (tmp_path / FILE).write_text("path,label\na,b\n")
    with pytest.raises(UserError, match="damaged"):
        read_predictions(tmp_path)
