"""Reads the golden cases in `tests/golden/cases`: figures that the released programs computed.

A small array is kept whole. Of a larger one these are kept: its shape, largest magnitude, mean and standard deviation,
and a fixed random sample of its entries. `tests/golden/make.py` writes the files from the complete cases and says where
those come from. Where the complete cases are on the machine (see `conftest.shared_folder`), `Case.check` compares every
entry with them as well, so that one forward pass serves both comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from conftest import shared_folder
from helpers import golden_weights
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "cases"


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """The (name, shape) pairs of a checkpoint from the tree of dictionaries in which its dotted names are kept."""
    for name, below in tree.items():
        if isinstance(below, dict):
            yield from flat(below, f"{prefix}{name}.")
        else:
            yield prefix + name, below


class Case:
    """One golden case.

    `about` describes the case (inputs, options of the released program), `case[name]` is an array that is kept whole,
    and `check` compares an array of this package with any array of the case. `name in case` and `shape` work for all.
    """

    def __init__(self, name: str) -> None:
        content = json.loads((FOLDER / f"{name}.json").read_text())
        self.name = name
        self.about: dict[str, Any] = content["about"]
        self._figures: dict[str, dict[str, Any]] = content["figures"]

    def __contains__(self, name: str) -> bool:
        return name in self._figures

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __getitem__(self, name: str) -> np.ndarray:
        kept = self._figures[name]
        if "whole" not in kept:
            raise KeyError(f"{self.name}: {name} is kept as a sample; compare with check(), or list it in make.py")
        return np.array(kept["whole"], kept["type"]).reshape(kept["shape"])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._figures[name]["shape"])

    def std(self, name: str) -> float:
        kept = self._figures[name]
        return kept["std"] if "std" in kept else float(self[name].astype(np.float64).std())

    def state(self, keys: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The checkpoint of the case under the released names; `keys` selects one if the case has several."""
        return golden_weights.state(dict(flat(self.about["keys"] if keys is None else keys)))

    @cached_property
    def _complete(self) -> dict[str, np.ndarray]:
        """The complete arrays of the case, or None where the complete cases are not on this machine."""
        root = shared_folder()
        files = () if root is None else sorted((root / "golden" / self.name).glob("*.npz"))
        return {key: value for file in files for key, value in np.load(file).items()}

    def check(self, name: str, ours: Tensor | np.ndarray, tolerance: float = 1e-4, *, of: float | None = None) -> None:
        """Asserts that no entry differs by more than `tolerance` times `of` (default: the largest magnitude of the
        array)."""
        found = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours).astype(np.float64)
        kept = self._figures[name]
        found = found.reshape(kept["shape"])
        if "whole" in kept:
            pairs = {"all entries": (found, self[name].astype(np.float64))}
            largest = np.abs(self[name].astype(np.float64)).max(initial=0.0)
        else:
            # Mean and standard deviation cannot differ by more than the entry that differs most.
            pairs = {
                "the sampled entries": (
                    found.ravel()[kept["at"]],
                    np.array(kept["sample"], kept["type"]).astype(np.float64),
                ),
                "the mean": (found.mean(), np.array(kept["mean"])),
                "the standard deviation": (found.std(), np.array(kept["std"])),
            }
            largest = kept["largest"]
        if name in self._complete:
            pairs["all entries of the complete case"] = (
                found,
                self._complete[name].astype(np.float64).reshape(found.shape),
            )
        allowed = tolerance * (largest if of is None else of)
        for what, (one, other) in pairs.items():
            worst = np.abs(one - other).max(initial=0.0)
            # 1e-12: between machines the mean of the same integers may differ in the last bit.
            assert worst <= allowed + 1e-12 * largest, f"{self.name}: {name}, {what}: {worst:.3g} > {allowed:.3g}"
