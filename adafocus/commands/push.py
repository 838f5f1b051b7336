"""`adafocus push`: shares the network of a run as a folder, at an fsspec address, or on the Hugging Face Hub."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError

EPILOG = """TARGET is a folder, an address that fsspec knows (s3://bucket/net, gs://bucket/net; its package must be
installed), or hf://owner/name, a repository of the Hugging Face Hub, which is created as private if it does not exist.
The shared files are model.safetensors, config.json (without paths of this machine), classes.txt, protocol.json and the
model card README.md. `adafocus.load("TARGET")` and `adafocus predict TARGET` read them."""


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus push`; returns the exit status."""
    parser = ArgumentParser(prog="adafocus push", description="Shares the network of a run.", epilog=EPILOG)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("target", metavar="TARGET", help="a folder, an fsspec address, or hf://owner/name")
    parser.add_argument("--public", action="store_true", help="create a new repository of the Hub as public")
    parser.add_argument(
        "--plugins", action="append", default=[], metavar="NAME", help="a module or .py file to import; may be repeated"
    )
    options = parser.parse_args(argv)
    from adafocus.core import plugins

    plugins.load(options.plugins)
    push(options.run, options.target, public=options.public)
    return 0


def push(run: Path, target: str, *, public: bool = False) -> None:
    """Shares the network of a run in a folder, at an fsspec address, or on the Hugging Face Hub.

    Raises:
        UserError: the run is not finished, or the target cannot be written or holds something else.
    """
    from adafocus.checkpoints.shared import WEIGHTS, is_address, send
    from adafocus.core.files import read_json

    summary = read_json(run / "summary.json", dict) or {}
    if summary.get("state") != "finished" or "parts" not in (summary.get("cost") or {}):
        raise UserError(f"{run} has no score for the model card; name the folder of a finished training or evaluation")
    folder = Path(target).expanduser()
    if not is_address(target) and folder.exists() and (not folder.is_dir() or _foreign(folder, WEIGHTS)):
        raise UserError(f"{target} exists and does not hold a shared network; choose another folder")
    with TemporaryDirectory() as place:
        files = bundle(run, summary, Path(place), target)
        if is_address(target):
            send(files, target, public=public)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for path in files:
                shutil.copyfile(path, folder / path.name)
        size = sum(path.stat().st_size for path in files) / 1e6
    sys.stdout.write(f"{target}: {', '.join(path.name for path in files)} ({size:.1f} MB)\n")


def _foreign(folder: Path, weights: str) -> bool:
    return any(folder.iterdir()) and not (folder / weights).is_file()


def bundle(run: Path, summary: dict[str, Any], place: Path, address: str) -> list[Path]:
    """Writes the files that are shared into an empty folder and returns their paths.
    Raises:
        UserError: the run has no checkpoint, or its summary is damaged.
    """
    from jinja2 import UndefinedError

    from adafocus import config, predict
    from adafocus.checkpoints import save_safetensors
    from adafocus.checkpoints.shared import WEIGHTS
    from adafocus.core.files import write_json
    from adafocus.runs.card import model_card

    predictor = predict.load(run, device="cpu")
    backbone = predictor.settings.backbone
    if own := [name for name in (backbone.glance, backbone.focus) if str(name).startswith("file/")]:
        raise UserError(
            f"{run} has the backbone {own[0]}, whose own folder would be missing; a network with it cannot be shared"
        )
    values = config.to_dict(without_paths(predictor.settings))
    notes = {"config": values, "classes": predictor.classes, "overrides": []}
    save_safetensors(place / WEIGHTS, predictor.model.state_dict(), notes)
    write_json(place / "config.json", values)
    text = "".join(f"{name}\n" for name in predictor.classes)
    (place / "classes.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    measured = {key: summary.get(key) for key in ("protocol", "metric", "score", "scores", "rows", "cost", "places")}
    write_json(place / "protocol.json", {**measured, "predicts": predictor.protocol})
    try:
        card = model_card(summary, predictor.classes, address)
    except (KeyError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise UserError(f"{run}/summary.json is damaged; evaluate the run again") from error
    (place / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    return [place / name for name in (WEIGHTS, "config.json", "classes.txt", "protocol.json", "README.md")]


def without_paths(settings: Any) -> Any:
    """Returns the configuration without names of files and folders of the machine that trained."""
    settings = deepcopy(settings)
    dataset = settings.dataset
    dataset.root, dataset.videos = ".", "."
    for name in ("train_list", "val_list", "test_list", "class_file", "bad_list"):
        setattr(dataset, name, None)
    settings.init = dict.fromkeys(settings.init)
    settings.teacher.checkpoint = None
    for name in ("weights", "glance_weights"):  # files of initial weights, which the shared weights replace
        if getattr(settings.backbone, name) not in (None, "imagenet", "none"):
            setattr(settings.backbone, name, "none")
    settings.name = settings.checkpoint = settings.early_exit.baseline = None
    settings.plugins = [Path(name).name if name.endswith(".py") else name for name in settings.plugins]
    return settings
