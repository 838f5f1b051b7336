"""Tests that every key of the configuration has a domain, and that any other value is refused in one line that names
the key."""

from __future__ import annotations

import copy
from dataclasses import dataclass, is_dataclass
from typing import Annotated, get_type_hints

import pytest
from helpers.configs import composed
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adafocus import config
from adafocus.config.schema import Config
from adafocus.core import domains
from adafocus.core.domains import Above, AtLeast, Between, Length, OneOf
from adafocus.core.errors import UserError

LEAVES = domains.leaves(Config)
NODES = {"": Config} | {name: hint for name, hint in get_type_hints(Config).items() if is_dataclass(hint)}
#: Tables without a domain: plug-ins check their own options, and each stage of a schedule is checked as a schedule.
FREE = [
    "dataset.options",
    "method.options",
    "backbone.glance_options",
    "backbone.focus_options",
    "policy.options",
    "schedule.stages",
]
NAN, INFINITE = float("nan"), float("inf")
BAD = [
    NAN,
    INFINITE,
    -INFINITE,
    -1,
    10**30,
    -(10**30),
    "",
    "no such word",
    "\x1b[31m",
    "${oc.env:HOME}",
    [],
    [NAN],
    {"a": 1},
]


@dataclass
class Sample:
    number: Annotated[int, AtLeast(1)] | None = None
    words: Annotated[list[Annotated[str, OneOf(("a", "b"))]], Length(1)] = None  # type: ignore[assignment]


def test_every_number_and_word_has_a_domain() -> None:
    assert domains.undescribed(Config) == FREE


def test_a_new_key_without_a_domain_is_found() -> None:
    @dataclass
    class Careless:
        rate: float = 0.1
        names: list[str] | None = None
        on: bool = False

    Careless.__annotations__ = {"rate": float, "names": list[str] | None, "on": bool}
    assert domains.undescribed(Careless) == ["rate", "names"]


def test_omegaconf_reads_past_the_domains() -> None:
    node = OmegaConf.structured(Config)
    node.dataset.crop_scales, node.schedule.lr_mults, node.segments.focus = ["0.5"], {"glance": "2"}, "8"
    assert (node.dataset.crop_scales, node.schedule.lr_mults.glance, node.segments.focus) == ([0.5], 2.0, 8)


@pytest.mark.parametrize(
    ("domain", "good", "bad", "says"),
    [
        (AtLeast(1), 1, 0, "at least 1"),
        (AtLeast(1), 1, 2**31, "at most 2147483647"),
        (Above(0), 0.1, 0.0, "greater than 0"),
        (Between(0, 1), 1.0, 1.1, "between 0 and 1"),
    ],
)
def test_domains_of_numbers(domain, good, bad, says: str) -> None:
    assert domain.holds(good) and not domain.holds(bad)
    with pytest.raises(UserError, match=f"key={bad} must be {says}"):
        domains._check_value("key", bad, Annotated[type(bad), domain])


def test_optional_values_and_elements_of_lists_are_checked() -> None:
    domains.check(Sample(None, ["a"]))
    for sample, says in (
        (Sample(0, ["a"]), "number=0 must be at least 1"),
        (Sample(1, ["a", "c"]), r"words\[1\]='c' is unknown; choose one of a, b"),
        (Sample(1, []), "words=.* must be a list of at least 1 element"),
    ):
        with pytest.raises(UserError, match=says):
            domains.check(sample)


@pytest.fixture(scope="module")
def plain() -> dict:
    return config.to_dict(composed())


def read(key: str, value: object) -> None:
    """Reads one value as a configuration is read: OmegaConf converts it to the type of the key, then its domain is
    checked."""
    node = OmegaConf.structured(NODES[key.rpartition(".")[0]])
    leaf = key.rpartition(".")[2]
    node[leaf] = value
    domains._check_value(
        key, OmegaConf.to_object(node[leaf]) if OmegaConf.is_config(node[leaf]) else node[leaf], LEAVES[key]
    )


@pytest.mark.parametrize("key", [key for key in LEAVES if key not in FREE])
def test_bad_values_are_refused_by_type_or_domain(key: str) -> None:
    refused = []
    for value in BAD:
        try:
            read(key, value)
        except OmegaConfBaseException:
            refused.append(repr(value))
        except UserError as error:
            assert "\n" not in str(error) and "\x1b" not in str(error) and str(error).startswith(key), str(error)
            refused.append(repr(value))
    base, domain = domains._split(LEAVES[key])
    if base in (int, float):
        assert {"nan", "inf", "-inf", repr(10**30), repr(-(10**30)), "''", "'no such word'"} <= set(refused)
    if base is str:
        assert {"''", "'\\x1b[31m'"} <= set(refused) or key == "dataset.separator"
    if any(isinstance(part, OneOf) for part in domain):
        assert "'no such word'" in refused
    assert "[nan]" in refused or key == "plugins"  # a plug-in may be called nan


def test_a_stored_configuration_is_refused_in_one_line_that_names_the_key(plain: dict) -> None:
    for key, value in {
        "schedule.lr": NAN,
        "patch.size": "big",
        "dataset.std": [0.0],
        "seed": "${oc.env:HOME}",
        "mode": "no",
    }.items():
        values = copy.deepcopy(plain)
        *path, leaf = key.split(".")
        node = values
        for part in path:
            node = node[part]
        node[leaf] = value
        with pytest.raises(UserError) as error:
            config.from_dict(values)
        assert key in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("seed=100000000000000000000000", "seed=100000000000000000000000 must be at most"),
        ("dataset.std=[0,0,0]", "dataset.std[0]=0.0 must be greater than 0"),
        ("schedule.momentum=5", "schedule.momentum=5.0 must be"),
        ("schedule.weight_decay=-10", "schedule.weight_decay=-10.0 must be at least 0"),
        ("schedule.warmup_epochs=-1", "schedule.warmup_epochs"),
        ("dataset.crop_scales=[]", "dataset.crop_scales=[] must be a list of at least 1 element"),
        ("loader.timeout=nan", "loader.timeout=nan must be a finite number"),
        ("schedule.lr=1e999", "schedule.lr=inf must be a finite number"),
        ("schedule.lr_mults.focus=nan", "schedule.lr_mults.focus=nan must be a finite number"),
        ("schedule.lr_mults={bad:1}", "'bad'"),
        ("schedule.lr_mults={}", "schedule.lr_mults={} has no effect"),
        ("early_exit.budgets=[0]", "early_exit.budgets[0]=0.0 must be greater than 0"),
        ("policy.grid=1", "policy.grid=1 must be at least 2"),
        ("backbone.shift_div=0", "backbone.shift_div=0 must be at least 1"),
        ("protocol.test=dense-0", "protocol.test='dense-0' must be middle"),
        ("evaluate.examples=-4", "evaluate.examples=-4 must be at least 0"),
        ("patch=", "names no option"),
        ("=1", "has no key"),
        ("patch.size=true", "patch.size: Value 'True'"),
        ("dataset.flip_pairs=[[a]]", "dataset.flip_pairs[0]"),
    ],
)
def test_bad_words_on_the_command_line(typed: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        composed(typed)
    assert says in str(error.value) and "\n" not in str(error.value)
