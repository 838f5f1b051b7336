"""Loggers, which get what metrics.jsonl gets, and pictures: TensorBoard, other trackers, and those of plug-ins."""

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
        folder: of the run.
        step: the last step that counts; what an interrupted run wrote of later ones is not shown.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """See `adafocus.core.registry.Logger`."""
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(tag(kind, name), value, step)

    def picture(self, name: str, step: int, image: Any) -> None:
        """See `adafocus.core.registry.Logger`."""
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def finish(self, folder: Path, summary: dict[str, Any]) -> None:
        """Writes the configuration and the results as `hparams`, by which TensorBoard compares runs."""
        chosen = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in identify(folder).parameters().items()
        }
        self.writer.add_hparams(chosen, results(summary), run_name=".")

    def close(self) -> None:
        """See `adafocus.core.registry.Logger`."""
        self.writer.close()


#: Loggers of our own; those of plug-ins are in `adafocus.core.registry.LOGGERS`.
OURS: dict[str, Callable[..., Logger]] = {
    "tensorboard": TensorBoard,
    "csv": CSVLogger,
    "mlflow": MLflow,
    "wandb": WandB,
}
#: Loggers that need a package which is not installed with this one; the extra has the same name.
EXTRAS = ("mlflow", "wandb")


def factories(names: list[str]) -> dict[str, Callable[..., Logger]]:
    """What makes the loggers of these names.

    Raises:
        UserError: one of them needs a package that is not installed.
    """
    for name in names:
        if name in EXTRAS and find_spec(name) is None:
            raise UserError(f'output.loggers={name} needs another package: pip install "adafocus[{name}]"')
    known = {**OURS, **LOGGERS}
    return {name: known[name] for name in names}


class Loggers:
    """Several loggers as one. One that raises is named in a warning and hears no more: it never ends a run.

    Args:
        folder: of the run.
        makers: by name, what is called with (folder, step=...) when the first thing is to be told.
    """

    def __init__(self, folder: Path, makers: Mapping[str, Callable[..., Logger]]) -> None:
        self.folder, self.makers = folder, dict(makers)
        self.open: dict[str, Logger] = {}

    def start(self, step: int) -> None:
        """Makes the loggers that are not there yet; `step` is the last one that counts."""
        while self.makers:
            name, make = self.makers.popitem()
            try:
                self.open[name] = make(self.folder, step=step)
            except Exception as error:
                self._drop(name, error)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Tells all of them."""
        self.start(step - 1)
        self._tell("record", kind, step, values)

    def picture(self, name: str, step: int, image: Any) -> None:
        """Shows it to all of them."""
        self.start(step - 1)
        self._tell("picture", name, step, image)

    def finish(self, summary: dict[str, Any]) -> None:
        """Tells all of them, but those of plug-ins that have no `finish`, that the run is complete."""
        self.start(0)
        self._tell("finish", self.folder, summary)

    def close(self) -> None:
        """Closes all of them."""
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
        log.warning("logger %s failed and is told no more (%s); metrics.jsonl goes on", name, reason)
