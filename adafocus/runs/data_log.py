"""Reports the data of a run before training: log lines, data.json and split.csv."""

from __future__ import annotations

from pathlib import Path

from adafocus.build import Data
from adafocus.core.files import write_json
from adafocus.data.collect import Collected, write_division
from adafocus.data.paths import printable
from adafocus.data.remarks import class_table
from adafocus.training.logger import log


def log_data(data: Data, folder: Path) -> None:
    """Logs the videos that were found and writes data.json, and split.csv if training videos were held out."""
    for name, found in data.found.items():
        expected = "" if found["expected"] is None else f" of {found['expected']} expected"
        parts = [
            f"{found[key]} {key.replace('_', ' ')}" for key in ("missing", "unreadable", "too_short") if found.get(key)
        ]
        labels = " labels {}..{},".format(*found["labels"]) if found.get("labels") else ""
        log.info(
            "%s:%s %d videos%s%s", name, labels, found["found"], expected, f" ({', '.join(parts)})" if parts else ""
        )
    log.info("%d classes; %s", len(data.classes), data.protocol)
    if data.validation != data.protocol:
        log.info("while training: %s", data.validation)
    values = {
        "found": data.found,
        "missing": data.missing,
        "classes": data.classes,
        "unreadable": data.unreadable,
    }
    if data.collected is not None:
        values |= {"clips": _log_classes(data.collected, data.unreadable), "notes": data.collected.notes}
        if data.collected.division:
            write_division(folder / "split.csv", data.collected.division)
            log.info("the training and validation parts of the training videos are listed in %s", folder / "split.csv")
    write_json(folder / "data.json", values)


def _log_classes(collected: Collected, unreadable: dict[str, dict[str, str]]) -> dict[str, dict[str, int]]:
    """Logs videos per class, remarks about the data and unreadable files; returns the class counts of each split."""
    for line in class_table(collected.classes, collected.counts):
        log.info("  %s", line)
    for note in collected.notes:
        log.warning("data: %s", note)
    for split, files in unreadable.items():
        name = {"train": "training", "validate": "validation", "evaluate": "evaluation"}[split]
        use = "left out" if split == "train" else "counted as wrong"
        for path, reason in list(files.items())[:10]:
            log.warning("unreadable video in %s, %s: %s: %s", name, use, printable(path), reason)
        if len(files) > 10:
            log.warning("... and %d more unreadable videos in %s; data.json names them", len(files) - 10, name)
    return {
        name: {split: int(values[number]) for split, values in collected.counts.items()}
        for number, name in enumerate(collected.classes)
    }
