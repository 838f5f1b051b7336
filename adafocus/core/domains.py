"""Domains, the allowed values of configuration keys in their types, and the function that checks a configuration.

    epochs: Annotated[int, AtLeast(1)]
    optimizer: Annotated[str, OneOf(OPTIMIZERS)]
    crop_scales: Annotated[list[Annotated[float, Between(0.01, 1)]], Length(1)]

OmegaConf ignores `Annotated`, so dataclasses with such types can be the schema of a Hydra configuration.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

from adafocus.core.errors import UserError

#: Upper limit of all numbers that have no other, because some code uses 32-bit integers.
LARGEST = 2**31 - 1


class Domain(Protocol):
    """The set of allowed values of a key; its `str` completes the sentence "KEY=VALUE must be ..."."""

    def holds(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included unless `above` excludes `low` or `below` excludes `high`."""

    low: float
    high: float = LARGEST
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """See `Domain`."""
        return self.low <= value <= self.high and not (
            self.above and value == self.low or self.below and value == self.high
        )

    def __str__(self) -> str:
        if self.above:
            return f"greater than {self.low:g}"
        if self.below:
            return f"at least {self.low:g} and below {self.high:g}"
        return f"at least {self.low:g}" if self.high >= LARGEST else f"between {self.low:g} and {self.high:g}"


AtLeast = Between = Interval
Above = partial(Interval, above=True)
Below = partial(Interval, below=True)


@dataclass(frozen=True)
class OneOf:
    """Words or numbers from a list, or keys of the table `registered`, to which plug-ins add."""

    words: Collection[Any]
    registered: Collection[Any] = ()

    @property
    def choices(self) -> tuple[Any, ...]:
        return tuple(dict.fromkeys((*self.words, *self.registered)))

    def holds(self, value: Any) -> bool:
        return value in self.choices

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}"


@dataclass(frozen=True)
class Matching:
    """Text that matches a regular expression as a whole; `says` describes the allowed values for messages."""

    pattern: str
    says: str

    def holds(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.says


@dataclass(frozen=True)
class Text:
    """Printable text in one line, such as a name or a path; `empty` allows the empty text."""

    empty: bool = False

    def holds(self, value: str) -> bool:
        return (self.empty or bool(value)) and value.isprintable()

    def __str__(self) -> str:
        return "text in one line without control characters" if self.empty else "printable text, and not empty"


@dataclass(frozen=True)
class Length:
    """Lists of `least` to `most` elements."""

    least: int
    most: int = LARGEST

    def holds(self, value: Sequence[Any]) -> bool:
        return self.least <= len(value) <= self.most

    def __str__(self) -> str:
        count = str(self.least) if self.most == self.least else f"at least {self.least}"
        return f"a list of {count} element{'s' * (count != '1')}"


@dataclass(frozen=True)
class Keys:
    """Dictionaries whose keys are among `names`."""

    names: Collection[str]

    def holds(self, value: dict[str, Any]) -> bool:
        return not set(value) - set(self.names)


#: Types that several keys have.
Count = Annotated[int, AtLeast(1)]
NotNegative = Annotated[int, AtLeast(0)]
Amount = Annotated[float, Above(0)]
Weight = Annotated[float, AtLeast(0)]
Share = Annotated[float, Below(0, 1)]
Probability = Annotated[float, Between(0, 1)]
Words = Annotated[str, Text()]


def check(config: Any, prefix: str = "") -> None:
    """Checks all values of a dataclass, nested ones included, against the domains in their types.

    Raises:
        UserError: a value is not allowed; the message has the full key, the value and what it must be.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        _check_value(f"{prefix}{field.name}", getattr(config, field.name), hints[field.name])


def _check_value(key: str, value: Any, hint: Any) -> None:
    if is_dataclass(value):
        return check(value, f"{key}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} must be a finite number")
    hint, domains = _split(hint)
    if value is None:
        return None
    for domain in domains:
        if not domain.holds(value):
            raise UserError(_sentence(key, value, domain))
    for name, part, inner in _parts(value, hint):
        _check_value(f"{key}{name}", part, inner)
    return None


def _split(hint: Any) -> tuple[Any, tuple[Domain, ...]]:
    """Returns the type without `| None` and `Annotated`, and the domains in `Annotated`."""
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Annotated:
        return get_args(hint)[0], get_args(hint)[1:]
    return hint, ()


def _parts(value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the elements of a list or dictionary as (suffix of the key for messages, value, type)."""
    inner = get_args(hint)[-1] if get_args(hint) else Any
    if isinstance(value, list):
        yield from ((f"[{number}]", part, inner) for number, part in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f".{name}", part, inner) for name, part in value.items())


def _sentence(key: str, value: Any, domain: Domain) -> str:
    if isinstance(domain, OneOf):
        near = difflib.get_close_matches(str(value), [str(choice) for choice in domain.choices], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}={value!r} is unknown; choose one of {', '.join(map(str, domain.choices))}{hint}"
    if isinstance(domain, Interval) and value > domain.high >= LARGEST:
        return f"{key}={value} must be at most {domain.high}"
    if isinstance(domain, Keys):
        unknown = min(set(value) - set(domain.names))
        return f"{key}.{unknown} is not a key of the configuration; {key} has {', '.join(domain.names)}"
    return f"{key}={value!r} must be {domain}" if isinstance(value, str) else f"{key}={value} must be {domain}"


def leaves(cls: type, prefix: str = "") -> dict[str, Any]:
    """Returns all keys of a dataclass with their types; keys of nested dataclasses have dots."""
    found: dict[str, Any] = {}
    hints = get_type_hints(cls, include_extras=True)
    for name, hint in ((field.name, hints[field.name]) for field in fields(cls)):
        nested = isinstance(hint, type) and is_dataclass(hint)
        found |= leaves(hint, f"{prefix}{name}.") if nested else {f"{prefix}{name}": hint}
    return found


def undescribed(cls: type) -> list[str]:
    """Returns the keys with numbers or text that have no domain; a test requires that there are none."""

    def open_ended(hint: Any) -> bool:
        base, domains = _split(hint)
        if base is bool or domains and base in (int, float, str):
            return False
        return not get_args(base) or any(open_ended(part) for part in get_args(base)[-1:])

    return [key for key, hint in leaves(cls).items() if open_ended(hint)]
