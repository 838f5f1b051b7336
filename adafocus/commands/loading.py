"""Command-line arguments and loading of a checkpoint, shared by the commands that work on one network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adafocus.core import plugins
from adafocus.core.errors import UserError


def _place(text: str) -> Path | str:
    """Returns a path, or an address of `adafocus push` as text, because Path would change "hf://" to "hf:/"."""
    return text if "://" in text else Path(text)


def add_model_arguments(parser: argparse.ArgumentParser, rest: str = "KEY=VALUE") -> None:
    """Adds the arguments CHECKPOINT, REST (overrides, and the command's inputs), --classes and --device."""
    parser.add_argument(
        "checkpoint",
        type=_place,
        help="a run folder, a checkpoint of adafocus or of a paper's repository, or where `adafocus push` shared one",
    )
    parser.add_argument(
        "rest",
        nargs="*",
        default=[],  # without it argparse calls this argument required
        metavar=rest,
        help="KEY=VALUE: the configuration of a published checkpoint, such as experiment=tsm_sthv2_8f"
        + ("" if rest == "KEY=VALUE" else "; else video files or frame folders, with --online also a camera index"),
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line")
    parser.add_argument(
        "--plugins", action="append", default=[], metavar="NAME", help="a module or .py file to import; may be repeated"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def split_typed(values: list[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into overrides (those with `=` that are not existing files) and the others."""
    typed = [value for value in values if "=" in value and not Path(value).exists()]
    return typed, [value for value in values if value not in typed]


def load_predictor(options: argparse.Namespace, *, videos: bool = False) -> Any:
    """Loads the predictor that the arguments name; overrides are in `options.rest`, which may also hold videos."""
    plugins.load(options.plugins)
    from adafocus import predict
    from adafocus.data.annotations import read_classes

    typed, others = split_typed(options.rest)
    if others and not videos:
        raise UserError(f"{others[0]!r} is not an override; write KEY=VALUE")
    classes = read_classes(options.classes) if options.classes else None
    names = ("precision", "fold_norm", "program", "program_for", "early_exit", "budget")
    program = {name: getattr(options, name) for name in names if name in options}
    return predict.load(options.checkpoint, typed, classes=classes, device=options.device, **program)
