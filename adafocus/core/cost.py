"""Records of what a network costs: its parts, and the multiply-adds of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of a network whose multiply-adds are counted.

    Attributes:
        name: glance, policy, focus, head, ...
        modules: paths of its submodules.
        auxiliary: whether only training and controls need it, so that a prediction does without.
        published: whether the cost table of the method's repository counts it.
    """

    name: str
    modules: tuple[str, ...] = ()
    auxiliary: bool = False
    published: bool = True

    def __str__(self) -> str:
        return f"auxiliary {self.name}" if self.auxiliary else self.name


#: The bilinear interpolation of patches, which no paper counts.
CROP = Part("crop", published=False)


@dataclass(frozen=True)
class Cost:
    """Multiply-adds (MACs) per video.

    Attributes:
        parts: by part; `CROP` is always among them.
        published: in the convention of the method's paper: without the crop, but with auxiliary heads if the paper's
            repository counts them. It is comparable with published figures.
    """

    parts: dict[Part, int]
    published: int

    @property
    def total(self) -> int:
        """Those of a prediction: of all parts but the auxiliary ones."""
        return sum(count for part, count in self.parts.items() if not part.auxiliary)

    def of(self, *names: str, auxiliary: bool = False) -> int:
        """Those of the named parts together.

        Raises:
            KeyError: there is no such part.
        """
        found = {part.name: count for part, count in self.parts.items() if part.auxiliary == auxiliary}
        return sum(found[name] for name in names)

    def as_dict(self) -> dict[str, Any]:
        """As cost.json and summary.json hold it; a crop that costs nothing is left out."""
        parts = {str(part): count for part, count in self.parts.items() if part != CROP or count}
        return {"parts": parts, "total": self.total, "published": self.published}
