"""report.html: what it says, what strangers' names may not do to it, and how a browser shows it."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.browser import browser, show_as

from adafocus.cli import main
from adafocus.evaluation.gallery import Example, Gallery
from adafocus.runs import report
from adafocus.runs.predictions import Predicted, read_predictions, write_predictions
from adafocus.runs.report.charts import Series, chart
from adafocus.runs.report.classes import class_scores, confused, confusion
from adafocus.runs.report.contents import Row
from adafocus.runs.report.page import headline
from adafocus.runs.report.strips import read_examples, write_examples

EVIL = ["<script>window.pwned=1</script>", '"><img src=x onerror=window.pwned=1>', "{{ 7*7 }}", "a & b"]


class Tags(HTMLParser):
    """Every start tag of a page with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def copy(run: Path, place: Path) -> Path:
    return Path(shutil.copytree(run, place))


def evil_run(run: Path, place: Path, classes: list[str] = EVIL) -> Path:
    """A copy of a run in which every name is a stranger's attempt to be markup."""
    folder = copy(run, place)
    count = 40
    rng = np.random.default_rng(0)
    logits = {
        EVIL[0]: torch.from_numpy(rng.normal(size=(count, len(classes)))),
        EVIL[1]: torch.zeros(count, len(classes)),
    }
    labels = torch.arange(count)[:, None] % len(classes)
    paths = [f"{EVIL[number % 4]}/{number}.mp4" for number in range(count)]
    write_predictions(folder, paths, classes, labels, logits, {3: EVIL[0], 4: EVIL[1]})
    frames = torch.from_numpy(rng.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8))
    boxes = torch.tensor([[[8.0, 8.0, 24.0, 24.0]]]).expand(8, -1, -1)
    gallery = [Example(frames, boxes, number % 2, 0, number, 0.9) for number in range(18)]
    write_examples(folder, gallery, paths, classes)
    data = json.loads((folder / "data.json").read_text())
    data |= {"classes": classes, "missing": {"evaluate": EVIL}, "notes": EVIL}
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "overrides.json").write_text(json.dumps([f"dataset.root={EVIL[0]}", *EVIL]))
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"protocol": EVIL[0], "device": EVIL[1], "versions": {EVIL[0]: EVIL[1]}, "metric": "top1"}
    for row, name in zip(summary["rows"], EVIL, strict=False):
        row["name"] = name
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_run_has_a_page_that_says_what_came_out(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    text = " ".join(Tags(page).text.split())
    summary = json.loads((small_run / "summary.json").read_text())
    assert f"learned patch: {summary['score']:.1f} top-1 % (95 % interval " in text
    low, high = summary["rows"][0]["interval"]
    assert 0 <= low <= summary["score"] <= high <= 100
    for row in summary["rows"]:
        assert row["name"] in text
    for heading in (
        "Score against cost",
        "Loss",
        "Validation score",
        "Learning rate",
        "The surest mistakes",
        "Confusion",
    ):
        assert heading in text, heading
    for word in (
        "glyph 0",
        "13 synthetic videos",
        "auxiliary focus",
        "adafocus run dataset.train_videos=48",
        '"seed": 0',
    ):
        assert word in text, word
    mistakes = [strip for strip in read_examples(small_run) if not strip.right]
    wrong = {row.path: row.top[0] for row in read_predictions(small_run) if not row.right}
    surest = sorted(wrong, key=lambda path: -wrong[path][1])[:12]
    assert [strip.path for strip in mistakes] == surest
    assert [(strip.prediction, pytest.approx(strip.probability)) for strip in mistakes] == [wrong[p] for p in surest]


@pytest.mark.parametrize("several", [False, True])
def test_names_of_strangers_are_text_and_nothing_is_fetched(small_run: Path, tmp_path: Path, several: bool) -> None:
    folder = evil_run(small_run, tmp_path / "run")
    folders = [folder, *([evil_run(small_run, tmp_path / EVIL[3])] if several else [])]
    path = tmp_path / "page.html"
    assert main(["report", *map(str, folders), "--output", str(path)]) == 0
    page = path.read_text()
    tags = Tags(page)
    assert EVIL[0] in tags.text and EVIL[1] in tags.text  # shown as they are
    assert "{{ 7*7 }}" in tags.text
    for tag, attributes in tags.found:
        assert tag not in ("script", "link", "iframe", "object", "base", "form"), tag
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        source = attributes.get("src") or attributes.get("href")
        assert source is None or source.startswith("data:image/jpeg;base64,"), (tag, source)
    assert "url(" not in page and "@import" not in page


def test_a_page_of_many_classes_and_large_clips_stays_below_5_mb(small_run: Path, tmp_path: Path) -> None:
    folder = evil_run(small_run, tmp_path / "run", classes=[f"{number} {EVIL[0]}" for number in range(400)])
    wide = torch.randint(0, 255, (16, 224, 340, 3), dtype=torch.uint8)
    gallery = [Example(wide, None, number % 2, 0, number, 0.9) for number in range(18)]
    write_examples(folder, gallery, [f"{number}.mp4" for number in range(18)], ["a", "b"])
    found = report.write_report(folder)
    assert found is not None and found.stat().st_size < 5e6
    assert found.read_text().count("<img") == 18


def test_a_failing_report_is_a_warning_and_no_end(small_run: Path, tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(report.log, "warning", lambda text, *values: said.append(text % values))
    folder = copy(small_run, tmp_path / "run")
    (folder / "predictions.csv").write_text("path,label\na,b\n")
    assert report.write_report(folder) is None
    assert len(said) == 1 and "\n" not in said[0] and "report.html was not written" in said[0]


@pytest.mark.parametrize("name", ["summary.json", "data.json", "examples/examples.json", "early_exit.json"])
def test_damaged_files_of_others_are_one_line(small_run: Path, tmp_path: Path, name: str, capsys) -> None:
    folder = copy(small_run, tmp_path / "run")
    for content in ('{"rows": [1], "found": [1], "cost": {"parts": [1]}}', "[3]", "{", '{"rows": [{"name": "a"}]}'):
        (folder / name).write_text(content)
        status = main(["report", str(folder)])
        assert status in (0, 2)
        if status == 2:
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1


def test_pictures_of_others_must_be_small_jpegs_of_the_folder(small_run: Path, tmp_path: Path) -> None:
    folder = copy(small_run, tmp_path / "run")
    rows = json.loads((folder / "examples/examples.json").read_text())
    whole = len(read_examples(folder))
    (folder / "secret.jpg").write_bytes((folder / "examples" / rows[0]["file"]).read_bytes())
    (folder / "examples" / rows[1]["file"]).write_text("<svg onload=alert(1)>")
    (folder / "examples/link.jpg").symlink_to(folder / "secret.jpg")
    rows[0]["file"], rows[2]["file"] = "../secret.jpg", "link.jpg"
    (folder / "examples/examples.json").write_text(json.dumps(rows))
    assert len(read_examples(folder)) == whole - 3


def test_a_run_that_goes_on_shows_its_curves(small_run: Path, tmp_path: Path, capsys) -> None:
    folder = copy(small_run, tmp_path / "run")
    for name in ("summary.json", "predictions.csv", "examples/examples.json"):
        (folder / name).unlink()
    (folder / "status.json").write_text('{"state": "failed", "error": "<b>disk</b> full"}')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    text = " ".join(Tags((folder / "report.html").read_text()).text.split())
    assert "This run is failed: <b>disk</b> full" in text and "Loss" in text and "Confusion" not in text
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_several_runs_are_compared_on_the_same_videos(small_run: Path, tmp_path: Path) -> None:
    one, two = copy(small_run, tmp_path / "one"), copy(small_run, tmp_path / "two")
    rows = read_predictions(one)
    classes = sorted({row.labels[0] for row in rows})
    labels = torch.tensor([[classes.index(row.labels[0])] for row in rows])
    perfect = torch.nn.functional.one_hot(labels[:, 0], len(classes)).float()
    write_predictions(two, [row.path for row in rows], classes, labels, {"learned patch": perfect}, {})
    assert main(["report", str(one), str(two), "--output", str(tmp_path / "both.html")]) == 0
    text = " ".join(Tags((tmp_path / "both.html").read_text()).text.split())
    gap = 100 - 100 * sum(row.right for row in rows) / len(rows)
    assert f"one against two 13 -{gap:.1f}" in text


def test_class_scores_are_those_of_the_books() -> None:
    rows = [
        Predicted("1", ["a"], [("a", 0.9)]),
        Predicted("2", ["a"], [("b", 0.8)]),
        Predicted("3", ["b"], [("b", 0.7)]),
        Predicted("4", ["b"], error="unreadable"),
    ]
    a, b, c = class_scores(rows, ["a", "b", "c"])
    assert (a.precision, a.recall, a.f1, a.support) == (100, 50, pytest.approx(200 / 3), 2)
    assert (b.precision, b.recall, b.f1, b.support) == (50, 50, 50, 2)
    assert (c.precision, c.recall, c.f1, c.support) == (None, None, None, 0)
    assert confusion(rows, ["a", "b", "c"]) == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert confused(rows, 5) == [("a", "b", 1)]


def test_the_headline_says_whether_the_videos_tell_method_and_control_apart() -> None:
    main_row = Row("learned patch", 80.0, 1e6, (70.0, 90.0), None)
    sure = headline([main_row, Row("random patch", 60.0, 1e6, None, (10.0, 30.0))], "top1")
    assert sure[0].startswith("learned patch: 80.0 top-1 % (95 % interval 70.0 to 90.0) at 1 M multiply-adds")
    assert sure[1] == (
        "That is 20.0 points above its best control, random patch (95 % interval of the difference +10.0 to +30.0)."
    )
    unsure = headline([main_row, Row("random patch", 82.0, 1e6, None, (-8.0, 4.0))], "top1")
    assert "2.0 points below" in unsure[1] and unsure[1].endswith("do not tell the two apart.")


def test_a_gallery_keeps_the_surest_mistakes_whatever_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 4, generator=generator), torch.randint(4, (60,), generator=generator)
    logits[:10] = logits[0]  # equal probabilities

    def kept(size: int) -> list[tuple[int, bool]]:
        gallery = Gallery(5, 3)
        for rows in torch.arange(60).split(size):
            index = rows

            def show(row: int, answer: int, probability: float, index: torch.Tensor = index) -> Example:
                number = int(index[row])
                return Example(torch.empty(0), None, int(labels[number]), answer, number, probability)

            gallery.offer(rows, labels[rows], logits[rows], show)
        return [(example.index, example.right) for example in gallery.kept]

    probability, answer = logits.softmax(1).max(1)
    wrong = [number for number in range(60) if answer[number] != labels[number]]
    surest = sorted(wrong, key=lambda number: (-float(probability[number]), number))[:5]
    assert kept(60) == kept(7) == kept(1)
    assert [index for index, right in kept(7) if not right] == surest
    assert sum(right for _, right in kept(7)) == 3


def test_charts_stand_equal_values_and_numbers_that_are_not_finite() -> None:
    assert chart("t", [Series("a", [(1, float("nan"))])], x_label="x", y_label="y") is None
    flat = chart("t", [Series("a", [(0, 0.0), (1, 0.0), (2, float("inf"))])], x_label="x", y_label="y")
    assert flat is not None and len(flat.series[0].path.split()) == 2
    costs = [Series("a", [(1e6, 50.0)], False, [(40.0, 60.0)]), Series("b", [(2e8, 90.0)], False)]
    wide = chart("t", costs, x_label="x", y_label="y", x_text=str)
    assert wide is not None and [text for _, text in wide.x_ticks] == ["1000000.0", "10000000.0", "100000000.0"]
    mark = wide.series[0].marks[0]
    assert mark.low is not None and mark.high is not None and mark.high < mark.y < mark.low  # y runs downwards
    long = chart("t", [Series("a", [(x, x) for x in range(10_001)])], x_label="x", y_label="y")
    assert long is not None and len(long.series[0].path.split()) < 310


@pytest.mark.slow
def test_a_browser_shows_it_in_light_and_dark_on_a_phone_and_a_screen(small_run: Path, tmp_path: Path) -> None:
    pages = [small_run / "report.html"]
    for name, runs in (("evil", 1), ("both", 2)):
        folders = [evil_run(small_run, tmp_path / f"{name}{number}") for number in range(runs)]
        pages.append(tmp_path / f"{name}.html")
        assert main(["report", *map(str, folders), "--output", str(pages[-1])]) == 0
    with browser() as driver:
        for page in pages:
            grounds = set()
            for scheme in ("light", "dark"):
                for width in (400, 1400):
                    show_as(driver, scheme, width)
                    driver.get(page.as_uri())
                    run = driver.execute_script
                    assert run("return document.documentElement.scrollWidth") <= width, (page.name, width)
                    grounds.add(run("return getComputedStyle(document.body).backgroundColor"))
                    assert run("return window.pwned === undefined")
                    assert run("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")
                    assert run("return document.querySelectorAll('svg circle, svg polyline').length") >= 2
            assert len(grounds) == 2, "light and dark have the same ground"
        severe = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        assert not severe, severe
