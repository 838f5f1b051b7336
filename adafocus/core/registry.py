"""Tables of the backbones, data sets, policies and loggers that plug-ins register, and the functions that fill them.

Methods are in `adafocus.methods.METHODS`. This module does not import torch, so that a configuration can be checked
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from adafocus.core import choices
from adafocus.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class Videos(Protocol):
    """One split of a data set, as a factory of `register_dataset` returns it.

    Attributes:
        classes: class names, the same in every split.
        labels: class of every video, as index in `classes`.
    """

    classes: Sequence[str]
    labels: Sequence[int]

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns the frames (T, H, W, 3) uint8 of a video in RGB.

        It may be called in other processes and must not depend on earlier calls.

        Raises:
            OSError, ValueError: the video cannot be read; it is counted and named, and the run continues.
        """


class Logger(Protocol):
    """The interface of a logger, as a factory of `register_logger` returns it. Only rank 0 of a run has loggers."""

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Receives a line of metrics.jsonl: `kind` is train or evaluate, `values` are numbers and texts by name."""

    def picture(self, name: str, step: int, image: Any) -> None:
        """Receives a PIL image."""

    def close(self) -> None:
        """Closes the logger when the run has ended or was interrupted."""

    # Optional: def finish(self, folder: Path, summary: dict[str, Any]) -> None
    #   Called before `close` when the run is complete: `folder` has report.html, predictions.csv and the checkpoints,
    #   and `summary` is the content of summary.json. It is not called for the stages before the last.


#: Name -> factory: (`backbone.focus_options` or `glance_options` by name) -> backbone; see `adafocus.backbones`.
BACKBONES: dict[str, Callable[..., nn.Module]] = {}
#: Name -> factory: ("train" or "val", seed=, root=, and `dataset.options` by name) -> Videos.
DATASETS: dict[str, Callable[..., Videos]] = {}
#: Name -> factory: (channels=, map_size=, segments=, hidden=, and `policy.options`) -> policy; see `adafocus.policies`.
POLICIES: dict[str, Callable[..., nn.Module]] = {}
#: Name -> factory: (run folder, step=N) -> Logger. The run continues from step N; later steps will be logged again.
LOGGERS: dict[str, Callable[..., Logger]] = {}


def register_backbone(name: str, factory: Callable[..., nn.Module]) -> None:
    """Registers a backbone for `backbone.glance=NAME` and `backbone.focus=NAME`.

    Args:
        name: the name.
        factory: called with `backbone.glance_options` or `backbone.focus_options` by name, without arguments if none
            are set; see `adafocus.backbones` for what it returns.

    Raises:
        UserError: the name is taken.
    """
    add("backbone", BACKBONES, name, factory, choices.BACKBONES)


def register_dataset(name: str, factory: Callable[..., Videos]) -> None:
    """Registers a data set for `dataset.source=NAME`; `DATASETS` describes the factory's arguments and result.

    Raises:
        UserError: the name is taken.
    """
    add("data set", DATASETS, name, factory, choices.SOURCES)


def register_policy(name: str, factory: Callable[..., nn.Module]) -> None:
    """Registers a policy of AdaFocus V2 for `policy.name=NAME`; `adafocus.policies` describes its factory.

    Raises:
        UserError: the name is taken.
    """
    add("policy", POLICIES, name, factory, choices.POLICIES)


def register_logger(name: str, factory: Callable[..., Logger]) -> None:
    """Registers a logger for `output.loggers=[NAME]`; `LOGGERS` describes the factory's arguments and result.

    Raises:
        UserError: the name is taken.
    """
    add("logger", LOGGERS, name, factory, choices.LOGGERS)


def add(kind: str, table: dict[str, Any], name: str, value: Any, ours: Collection[str] = ()) -> None:
    """Adds an entry to a table; the names in `ours` are used by this package.

    Raises:
        UserError: the name is used already, or is not an identifier.
    """
    if not name.isidentifier():
        raise UserError(f"{name!r} cannot be the name of a {kind}: use letters, digits and '_'")
    if name in ours or (name in table and table[name] is not value):
        raise UserError(f"there is already a {kind} named {name!r}; register this one with another name")
    table[name] = value
