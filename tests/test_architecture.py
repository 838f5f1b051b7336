"""Tests of the architecture: which subpackage may import which, and the sizes of files and functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "adafocus"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Subpackage or file of adafocus/ -> the others that it may import.
ALLOWED = {
    "core": set(),
    "config": {"methods", "core"},  # for the keys that a method reads; its method.py does not import torch
    "layers": {"core"},
    "backbones": {"layers", "core"},
    "policies": {"layers", "core"},
    "methods": {"backbones", "policies", "layers", "core"},
    "data": {"core"},
    "checkpoints": {"core"},
    "processes": {"core"},
    "training": {"processes", "core"},
    "evaluation": {"processes", "core"},
    "build_data": {"methods", "data", "config", "core"},
    "build": {
        "build_data",
        "methods",
        "backbones",
        "checkpoints",
        "training",
        "evaluation",
        "data",
        "config",
        "core",
    },
    "engines": {"core"},
    "inference": {"engines", "layers", "core"},
    "predict": {"inference", "build", "evaluation", "processes", "methods", "checkpoints", "data", "config", "core"},
    "spans": {"predict", "build", "evaluation", "methods", "data", "core"},
    "batch": {"predict", "data", "core"},
    "runs": {
        "runs",
        "predict",
        "inference",
        "build",
        "training",
        "evaluation",
        "processes",
        "methods",
        "checkpoints",
        "layers",
        "data",
        "config",
        "core",
    },
    "commands": {
        "commands",
        "engines",
        "inference",
        "batch",
        "runs",
        "spans",
        "predict",
        "build",
        "training",
        "evaluation",
        "processes",
        "methods",
        "checkpoints",
        "data",
        "config",
        "core",
    },
}
#: External package -> the files or subpackages that may import it.
ONLY_IN = {
    "hydra": {"cli.py", "config/compose.py", "config/searchpath.py", "runs/sweep.py", "config/stored.py"},
    "omegaconf": {"cli.py", "config/compose.py", "config/load.py", "config/schema.py", "methods/options.py"},
    "decord": {"data/video.py"},
    "av": {"data/packets.py", "data/video.py", "data/stream.py"},  # video files and streams
    "torchcodec": {"data/video.py"},
}
#: Subpackages that may use torch.distributed.
DISTRIBUTED = {"processes"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "adafocus" and len(parts) > 1:
            target = parts[1]
            if room(path) in ALLOWED:
                allowed = ALLOWED[room(path)] | {room(path)}
                assert target in allowed or target == "__version__", f"{relative} imports {name}"
        elif parts[0] in ONLY_IN:
            assert relative in ONLY_IN[parts[0]], f"{relative} imports {name}"
        elif name.startswith("torch.distributed") or name.startswith("torch.nn.parallel"):
            assert room(path) in DISTRIBUTED, f"{relative} imports {name}"


def test_the_rules_see_a_forbidden_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("from adafocus.layers import heads\nimport av\n")
    assert imports(file) == {"adafocus.layers.heads", "av"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 70, f"{path.name}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_print_no_cuda_calls(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "print", f"{path.name}:{node.lineno}"
            assert getattr(node.func, "attr", "") != "cuda", f"{path.name}:{node.lineno}"
