"""Loggers, which get the metrics of metrics.jsonl and images: TensorBoard, other trackers, and loggers of plug-ins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from adafocus.core.errors import UserError
from adafocus.core.registry import LOGGERS, Logger
from adafocus.training.trackers import CSVLogger, MLflow, WandB, identify, results, tag

log = logging.getLogger("adafocus")


class TensorBoard:
    """Numbers as `train/name` and `val/name`, and pictures, in the folder `tensorboard` of the run.

    Args:
        folder: the run folder.
        step: the step that the run continues from; records of later steps, from before an interruption, are hidden.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(tag(kind, name), value, step)

    def picture(self, name: str, step: int, image: Any) -> None:
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def finish(self, folder: Path, summary: dict[str, Any]) -> None:
        """Writes the configuration and the results as `hparams`, by which TensorBoard compares runs."""
        chosen = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in identify(folder).parameters().items()
        }
        self.writer.add_hparams(chosen, results(summary), run_name=".")

    def close(self) -> None:
        self.writer.close()


#: Loggers of this package by name; those of plug-ins are in `adafocus.core.registry.LOGGERS`.
OURS: dict[str, Callable[..., Logger]] = {
    "tensorboard": TensorBoard,
    "csv": CSVLogger,
    "mlflow": MLflow,
    "wandb": WandB,
}
#: Loggers that need an optional dependency; the extra of this package that installs it has the same name.
EXTRAS = ("mlflow", "wandb")


def factories(names: list[str]) -> dict[str, Callable[..., Logger]]:
    """Returns the factories of the loggers of these names.

    Raises:
        UserError: a logger needs a package that is not installed.
    """
    for name in names:
        if name in EXTRAS and find_spec(name) is None:
            raise UserError(f'output.loggers={name} needs another package: pip install "adafocus[{name}]"')
    known = {**OURS, **LOGGERS}
    return {name: known[name] for name in names}


class Loggers:
    """Passes records to several loggers. If one raises, a warning names it and it is not called again; the run goes on.

    Args:
        folder: the run folder.
        makers: factories by name, called with (folder, step=...) before the first record.
    """

    def __init__(self, folder: Path, makers: Mapping[str, Callable[..., Logger]]) -> None:
        self.folder, self.makers = folder, dict(makers)
        self.open: dict[str, Logger] = {}

    def start(self, step: int) -> None:
        """Makes the loggers, unless that is done; `step` is the step that the run continues from."""
        while self.makers:
            name, make = self.makers.popitem()
            try:
                self.open[name] = make(self.folder, step=step)
            except Exception as error:
                self._drop(name, error)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Passes a line of metrics.jsonl to all loggers."""
        self.start(step - 1)
        self._tell("record", kind, step, values)

    def picture(self, name: str, step: int, image: Any) -> None:
        """Passes a PIL image to all loggers."""
        self.start(step - 1)
        self._tell("picture", name, step, image)

    def finish(self, summary: dict[str, Any]) -> None:
        """Calls `finish` of all loggers that have it, when the run is complete."""
        self.start(0)
        self._tell("finish", self.folder, summary)

    def close(self) -> None:
        """Closes all loggers."""
        self._tell("close")
        self.open.clear()

    def _tell(self, verb: str, *what: Any) -> None:
        for name, logger in list(self.open.items()):
            if verb == "finish" and not hasattr(logger, verb):
                continue
            try:
                getattr(logger, verb)(*what)
            except Exception as error:
                del self.open[name]
                self._drop(name, error)

    @staticmethod
    def _drop(name: str, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("logger %s failed (%s) and gets no more records; metrics.jsonl still does", name, reason)
