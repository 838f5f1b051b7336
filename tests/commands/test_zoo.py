"""Tests of `adafocus zoo`: it has every row of the READMEs, and counted costs agree with the printed digits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.configs import composed

from adafocus import build, cli
from adafocus.commands import zoo
from adafocus.runs.job import report_cost

ROOT = Path(__file__).resolve().parents[2]
#: Rows of the five READMEs by data set: (patch, score, GFLOPs), and for whole frames (frames, views, score).
ADAFOCUS_V1 = {
    "actnet": {(96, 71.9, 17.2), (128, 75.0, 26.6), (160, 76.0, 38.6), (192, 76.7, 53.3)},
    "sthv1": {(224, 47.0, 35.1), (144, 47.0, 23.5), (160, 47.6, 27.5), (176, 48.1, 33.7)},
    "sthv2": {(224, 59.6, 35.1), (144, 59.7, 23.5), (160, 60.2, 27.5), (176, 60.7, 33.7)},
}
ADAFOCUS_V2 = {
    "actnet": {
        (96, 77.4, 17.6),
        (128, 79.0, 27.0),
        (160, 79.9, 39.0),
        (96, 77.5, 24.8),
        (128, 78.9, 34.1),
        (160, 80.2, 46.1),
    },
    "fcvid": {(128, 85.0, 27.0), (128, 84.5, 34.1)},
    "minik": {(128, 75.4, 27.0), (128, 74.0, 34.1)},
    "sthv1": {(128, 47.0, 18.5), (144, 48.2, 23.5), (160, 48.6, 27.5), (176, 49.6, 33.7)},
    "sthv2": {(128, 59.6, 18.5), (144, 60.5, 23.5), (160, 60.8, 27.5), (176, 61.3, 33.7)},
    "jester": {(128, 96.6, 18.5), (176, 96.9, 33.7)},
}
UNI_ADAFOCUS = {
    "actnet": {(128, 80.7, 27.2), (96, 79.3, 17.9), (160, 81.5, 39.2), (128, 80.4, 18.1), (128, 78.3, 9.1)},
    "fcvid": {(128, 86.4, 27.2), (128, 86.2, 18.1), (128, 85.4, 9.1)},
    "minik": {(128, 75.8, 27.2), (128, 75.7, 18.1), (128, 74.3, 9.1)},
    "sthv1": {
        (96, 47.5, 8.8),
        (96, 49.5, 11.8),
        (128, 50.5, 18.8),
        (128, 51.5, 24.2),
        (96, 48.9, 8.8),
        (128, 51.0, 18.8),
    },
    "sthv2": {
        (96, 60.8, 8.8),
        (96, 62.6, 11.8),
        (128, 63.2, 18.8),
        (128, 64.2, 24.2),
        (96, 62.5, 8.8),
        (128, 64.2, 18.8),
    },
    "jester": {(128, 97.1, 18.8)},
}
WHOLE_FRAMES = {
    ("tsn_", "kinetics400"): {("8", 1, 68.8), ("8", 10, 69.9), ("8", 30, 70.6), ("16", 1, 69.4), ("16", 10, 70.2)},
    ("tsm_", "kinetics400"): {
        ("8", 1, 71.2),
        ("8", 10, 72.8),
        ("16", 1, 72.6),
        ("16", 10, 73.7),
        ("8", 30, 74.1),
        ("8", 30, 69.5),
        ("8", 1, 55.7),
    },
    ("nl_tsm_", "kinetics400"): {("8", 30, 75.6)},
    ("tsm_", "sthv1"): {
        ("8", 1, 45.6),
        ("8", 6, 47.2),
        ("16", 1, 47.2),
        ("16", 6, 48.4),
        ("8", 1, 46.9),
        ("8", 6, 48.7),
        ("8", 1, 46.1),
    },
    ("tsm_", "sthv2"): {("8", 6, 61.2), ("16", 6, 63.1), ("8", 6, 63.3), ("8", 1, 59.1)},
    ("tam_", "kinetics400"): {("8", 30, 76.1), ("16", 30, 76.9)},
    ("tam_", "sthv1"): {("8", 1, 46.5), ("16", 1, 47.6)},
    ("tam_", "sthv2"): {("8", 6, 62.7), ("16", 6, 64.6)},
}


@pytest.fixture(scope="module")
def table() -> list[zoo.Row]:
    return zoo.read()


def test_every_row_of_the_readmes_is_there(table: list[zoo.Row]) -> None:
    for prefix, expected in (
        ("adafocus_v1_", ADAFOCUS_V1),
        ("adafocus_v2_", ADAFOCUS_V2),
        ("uni_adafocus_", UNI_ADAFOCUS),
    ):
        own = [row for row in table if row.experiment.startswith(prefix)]
        found = {name: {(r.patch, r.score, r.published) for r in own if r.dataset == name} for name in expected}
        assert found == expected
        assert len(own) == sum(map(len, expected.values()))
    for (prefix, dataset), expected in WHOLE_FRAMES.items():
        own = [row for row in table if row.experiment.startswith(prefix) and row.dataset == dataset]
        assert {(row.frames, row.views, row.score) for row in own} == expected, prefix


def test_costs_are_those_that_are_printed(table: list[zoo.Row]) -> None:
    printed = [row for row in table if row.published is not None]
    assert len(printed) > 50
    for row in printed:
        if row.digits:
            assert f"{row.counted:.1f}" == f"{row.published:.1f}", row.experiment
        elif "early exit" not in row.note:
            assert abs(row.counted - row.published) < 0.1, row.experiment


@pytest.mark.slow
def test_every_command_composes(table: list[zoo.Row]) -> None:
    early = {row.evaluate for row in table if "mode=early_exit" in row.evaluate}
    assert len(early) == 7  # other evaluation commands are composed in zoo_rows; early exit and training are not
    for command in sorted(early | {row.train for row in table}):
        program, script, *typed = command.split()
        assert (program, script) == ("python", "run.py")
        composed(*typed)


def test_the_page_is_what_the_command_writes(table: list[zoo.Row]) -> None:
    assert (ROOT / "docs/zoo.md").read_text() == zoo.markdown(table), "run `adafocus zoo --write`"


@pytest.mark.slow
def test_the_stored_rows_are_what_is_counted_now(table: list[zoo.Row]) -> None:
    from adafocus.commands import zoo_rows

    assert list(zoo_rows.rows()) == table, "run `adafocus zoo --write`"


#: One experiment of each kind; the slow test above counts all of them again.
COUNTED = ("tsn_kinetics400_5f", "adafocus_v2_jester_p128_tsm", "uni_adafocus_actnet_p128", "adafocus_v1_actnet_p128")


def test_some_rows_are_counted_anew(table: list[zoo.Row]) -> None:
    from adafocus.commands import zoo_rows

    assert list(zoo_rows.rows(COUNTED)) == [row for name in sorted(COUNTED) for row in table if row.experiment == name]


def test_frames_of_the_test_cost_what_they_cost(table: list[zoo.Row]) -> None:
    """TSN is trained with 5 frames and tested with 8 or 16; its cost is that of the tested frames."""
    own = {row.frames: row.counted for row in table if row.experiment == "tsn_kinetics400_5f"}
    frame = 20.439777280 / 5
    assert own == {"8": pytest.approx(8 * frame), "16": pytest.approx(16 * frame)}
    for typed, frames in (((), 8), (("protocol.segments=16",), 16), (("protocol.segments=null",), 5)):
        settings = composed("experiment=tsn_kinetics400_5f", "dataset.root=/data", *typed)
        plan = build.tested_plan(settings)
        assert plan.clip == plan.seen == frames


def test_mode_cost_counts_the_frames_of_the_test(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = composed("experiment=tsn_kinetics400_5f", "dataset.root=.", "protocol.segments=16", "mode=cost")
    report_cost(settings, tmp_path)
    assert json.loads((tmp_path / "cost.json").read_text())["total"] == pytest.approx(65.407e9, rel=1e-4)
    assert "65,407" in capsys.readouterr().out


def test_files_have_addresses_and_their_sources(table: list[zoo.Row]) -> None:
    for row in table:
        assert (row.address is not None) == (row.file is not None or row.experiment.startswith("tam_")), row.experiment
        assert row.readme.startswith("github.com/")
    tsm = next(row for row in table if row.experiment == "tsm_sthv2_8f")
    assert tsm.address == f"https://file.lzhu.me/projects/tsm/models/{tsm.file}"
    v1 = next(row for row in table if row.experiment == "adafocus_v1_actnet_p128")
    assert v1.file == "128s3_checkpoint.pth.tar" and "stage=1" in v1.note


def test_the_console_answers_without_torch_and_hydra(tmp_path: Path) -> None:
    code = (
        "import sys; from adafocus.cli import main; status = main(['zoo', 'tam']) or main(['--help']); "
        "sys.exit(status or any(name in sys.modules for name in ('torch', 'hydra')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_single_rows_on_the_console(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["zoo", "jester_p128.pth.tar"]) == 0
    printed = capsys.readouterr().out
    assert "96.6 top-1 on jester, 18.5 G printed, 18.459 G counted" in printed
    assert "python run.py mode=evaluate experiment=adafocus_v2_jester_p128_tsm checkpoint=FILE" in printed
    assert "https://drive.google.com/drive/folders/" in printed and "None" not in printed
    assert cli.main(["zoo", "jester_p128.pth.tar", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["file"] == "jester_p128.pth.tar"
    assert cli.main(["zoo", "tsn"]) == 0 and "None" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing at all", "no published model is called 'nothing at all'"),
        ("tsm_sthv1_8ff", "did you mean tsm_sthv1_8f"),
        ("tsm_sthv1_8f_author", "an experiment without a published score"),
    ],
)
def test_names_without_a_row_are_one_line(name: str, says: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["zoo", name]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1 and not printed.out
