"""What packages outside this one add, by name: backbones, data sets, policies and loggers.

Plain tables, filled by the functions below when a plug-in is imported (see `adafocus.core.plugins`). Methods are in
`adafocus.methods.METHODS`. Nothing here imports torch, so that a configuration is checked without it.
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
    """One split of a data set: what a factory of `register_dataset` returns.

    Attributes:
        classes: names, the same in every split.
        labels: class of every video, an index of `classes`.
    """

    classes: Sequence[str]
    labels: Sequence[int]

    def __getitem__(self, index: int) -> np.ndarray:
        """The frames of a video, (T, H, W, 3) uint8 in RGB.

        It may be called in other processes and must not depend on the calls before.

        Raises:
            OSError, ValueError: the video cannot be read; it is counted and named, and the run goes on.
        """


class Logger(Protocol):
    """What a factory of `register_logger` returns. Only the first process of a run has loggers."""

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl: `kind` is train or evaluate, `values` are numbers and texts by name."""

    def picture(self, name: str, step: int, image: Any) -> None:
        """A PIL image."""

    def close(self) -> None:
        """The run has ended, or was interrupted."""

    # Optional: def finish(self, folder: Path, summary: dict[str, Any]) -> None
    #   The run is complete: `folder` holds report.html, predictions.csv and the checkpoints, and `summary` is the
    #   content of summary.json. `close` follows. A stage before the last is closed without it.


#: (`backbone.focus_options` or `glance_options` by name) -> backbone; see `adafocus.backbones`.
BACKBONES: dict[str, Callable[..., nn.Module]] = {}
#: ("train" or "val", seed=, root=, and `dataset.options` by name) -> Videos.
DATASETS: dict[str, Callable[..., Videos]] = {}
#: (channels=, map_size=, segments=, hidden=, and `policy.options` by name) -> module; see `adafocus.policies`.
POLICIES: dict[str, Callable[..., nn.Module]] = {}
#: (run folder, step=the last step that counts: what was recorded of later ones is recorded again) -> Logger.
LOGGERS: dict[str, Callable[..., Logger]] = {}


def register_backbone(name: str, factory: Callable[..., nn.Module]) -> None:
    """Makes a backbone known as `backbone.glance=NAME` and `backbone.focus=NAME`.

    Args:
        factory: called with `backbone.glance_options` or `backbone.focus_options` by name, without arguments if none
            are set; see `adafocus.backbones` for what it returns.

    Raises:
        UserError: the name is taken.
    """
    add("backbone", BACKBONES, name, factory, choices.BACKBONES)


def register_dataset(name: str, factory: Callable[..., Videos]) -> None:
    """Makes a data set known as `dataset.source=NAME`; see `Videos` and `DATASETS`.

    Raises:
        UserError: the name is taken.
    """
    add("data set", DATASETS, name, factory, choices.SOURCES)


def register_policy(name: str, factory: Callable[..., nn.Module]) -> None:
    """Makes a policy of AdaFocus V2 known as `policy.name=NAME`; see `POLICIES` and `adafocus.policies`.

    Raises:
        UserError: the name is taken.
    """
    add("policy", POLICIES, name, factory, choices.POLICIES)


def register_logger(name: str, factory: Callable[..., Logger]) -> None:
    """Makes a logger known as `output.loggers=[NAME]`; see `Logger` and `LOGGERS`.

    Raises:
        UserError: the name is taken.
    """
    add("logger", LOGGERS, name, factory, choices.LOGGERS)


def add(kind: str, table: dict[str, Any], name: str, value: Any, ours: Collection[str] = ()) -> None:
    """Adds an entry; `ours` are names that are taken without being in the table.

    Raises:
        UserError: the name is taken, or is none.
    """
    if not name.isidentifier():
        raise UserError(f"{name!r} cannot be the name of a {kind}: use letters, digits and '_'")
    if name in ours or (name in table and table[name] is not value):
        raise UserError(f"there is already a {kind} of the name {name!r}; register it under another name")
    table[name] = value
