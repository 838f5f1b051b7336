"""Records of a network's cost: its parts, and the multiply-adds of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of a network whose multiply-adds are counted.

    Attributes:
        name: glance, policy, focus, head, ...
        modules: paths of its submodules.
        auxiliary: whether only training and controls need it, not predictions.
        published: whether the cost table of the method's repository counts it.
    """

    name: str
    modules: tuple[str, ...] = ()
    auxiliary: bool = False
    published: bool = True

    def __str__(self) -> str:
        return f"auxiliary {self.name}" if self.auxiliary else self.name


#: The part for the bilinear interpolation of patches, which no paper counts.
CROP = Part("crop", published=False)


@dataclass(frozen=True)
class Cost:
    """Multiply-adds (MACs) per video.

    Attributes:
        parts: part -> its multiply-adds; `CROP` is always one of the parts.
        published: multiply-adds in the convention of the method's paper, for comparison with published figures: without
            the crop, and with auxiliary heads if the paper's repository counts them.
    """

    parts: dict[Part, int]
    published: int

    @property
    def total(self) -> int:
        """Multiply-adds of a prediction: of all parts but the auxiliary ones."""
        return sum(count for part, count in self.parts.items() if not part.auxiliary)

    def of(self, *names: str, auxiliary: bool = False) -> int:
        """Returns the multiply-adds of the named parts together.

        Raises:
            KeyError: there is no such part.
        """
        found = {part.name: count for part, count in self.parts.items() if part.auxiliary == auxiliary}
        return sum(found[name] for name in names)

    def as_dict(self) -> dict[str, Any]:
        """Returns the entry for cost.json and summary.json; a crop without cost is left out."""
        parts = {str(part): count for part, count in self.parts.items() if part != CROP or count}
        return {"parts": parts, "total": self.total, "published": self.published}
