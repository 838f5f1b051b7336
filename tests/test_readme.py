"""Tests that the commands in the README compose, and that CI runs the test command of the README."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adafocus import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RUNS = (ROOT / "docs/runs.md").read_text()  # the README refers to it for sweeps and other modes
COMMANDS = [
    line.split("#")[0].strip()
    for line in (README + RUNS).replace("\\\n", " ").splitlines()
    if re.match(r"(pip install \S+ && )?python run\.py", line)
    and "checkpoint=" not in line
    and "--cfg" not in line
    and "hydra/" not in line  # needs the extra `sweep`; tests/runs/test_sweep.py runs it
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str, tmp_path: Path, monkeypatch, capsys) -> None:
    seen = []
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def begin(node: object, *_: object) -> Iterator[None]:
        seen.append(node)
        yield None  # nothing is left to do

    monkeypatch.setattr("adafocus.runs.sweep.begin", begin)
    monkeypatch.setattr("adafocus.runs.compare.write_comparison", lambda *_, **__: True)
    monkeypatch.setattr("adafocus.runs.compare.main", lambda _: 0)
    typed = shlex.split(command.split("run.py", 1)[1])
    assert cli.run(typed) == 0, capsys.readouterr().err
    assert seen
    if "-m" in typed:
        assert len(seen) > 1


def test_the_readme_has_the_commands_it_promises() -> None:
    assert len(COMMANDS) >= 6


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = re.search(r'^(pip install -e "\.\[test\]" && python -m pytest)', README, re.MULTILINE).group(1)
    assert command.replace("pip install", "pip install --quiet") in (ROOT / ".ci/run").read_text()


def test_pictures_and_pages_that_it_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
