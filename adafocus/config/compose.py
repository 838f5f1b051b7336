"""Composes a configuration from overrides with Hydra, and turns Hydra's errors into one-line messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from adafocus.config import naming, renamed
from adafocus.config.schema import GROUPS, Config
from adafocus.core import domains, plugins
from adafocus.core.errors import UserError

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import DictConfig

#: YAML groups whose options are numbers -> the key that sets a number for which there is no file.
LEAVES = {"patch": "patch.size", "segments": "segments.glance"}
_FILES = ("debug", "experiment")  # YAML groups that are not sections of the configuration
_NO_RECIPE = "this method has no schedule for this data set; choose another schedule or method"


def conf_folder() -> Path:
    """Returns the folder `conf/`, next to the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"no conf/ folder in {package} or beside it; the installation is incomplete")


class Composed(NamedTuple):
    """Result of composing overrides with Hydra.

    Attributes:
        node: the configuration as OmegaConf node.
        folder: the run folder for these overrides.
        overrides: all overrides except those of Hydra's own settings.
        choices: the chosen option of every YAML group.
    """

    node: Any
    folder: Path
    overrides: list[str]
    choices: dict[str, str]


def compose(typed: list[str]) -> Config:
    """Composes and checks the configuration for these overrides, without starting a run."""
    from omegaconf.errors import OmegaConfBaseException

    from adafocus import config

    try:
        with composed(typed) as job:
            return config.from_node(job.node, said(job.overrides))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error


@contextmanager
def composed(typed: list[str], stored: Sequence[str] = ()) -> Iterator[Composed]:
    """Composes overrides with Hydra, as a context in which `said` can be called.

    Args:
        typed: overrides of the command line, which take precedence.
        stored: overrides of an earlier run.

    Raises:
        UserError: an override is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    refuse_empty(typed)
    typed = quote_paths(typed)
    load_plugins(typed)
    check_typed(typed, sweep=False)
    arguments = naming.quote_numbers([*stored, *typed])
    register(arguments, stored=stored)
    with ExitStack() as hydra:
        try:
            hydra.enter_context(initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())))
            node = hydra_compose("config", arguments, return_hydra_config=True)
            about = node.hydra
            found = (
                Path(about.run.dir),
                list(about.overrides.task),
                {name: str(about.runtime.choices[name]) for name in GROUPS},
            )
            OmegaConf.set_readonly(node, False)
            with open_dict(node):
                del node["hydra"]
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, first_unparsable(arguments))) from error
        yield Composed(node, *found)


def load_plugins(typed: Iterable[str]) -> None:
    """Imports the plug-ins in the override `plugins=[...]`, so that the names they register are known.

    Raises:
        UserError: the value is not a list, or a plug-in cannot be imported.
    """
    named = typed_value(typed, "plugins")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"plugins={named} must be a list of modules or .py files, as in plugins=[my_package]")
    plugins.load(named or ())


def said(overrides: Sequence[str]) -> set[str]:
    """Returns the keys that are set by overrides, or by the debug and experiment files that the overrides choose.

    It must be called while Hydra is initialized, because the files are found on Hydra's search path.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    keys: set[str] = set()
    repository = cast("ConfigLoaderImpl", GlobalHydra.instance().config_loader()).repository
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = override.value()
        keys |= _leaves(override.key_or_group, value)
        if override.key_or_group in _FILES:
            for option in value if isinstance(value, list) else [value]:
                found = repository.load_config(f"{override.key_or_group}/{option}") if option else None
                keys |= _leaves("schedule", cast("DictConfig", found.config).get("schedule") or {}) if found else set()
    return keys


def _leaves(key: str, value: Any) -> set[str]:
    if not hasattr(value, "items") or not value:
        return {key}
    return {leaf for name, part in value.items() for leaf in _leaves(f"{key}.{name}", part)}


def refuse_empty(overrides: Sequence[str]) -> None:
    """Refuses overrides without a key, without an option, or with an empty table, which Hydra ignores or misreports.

    Raises:
        UserError: there is such an override; the message says what to write instead.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or override.startswith("-"):
            continue
        name = key.lstrip("+~")
        if not name:
            raise UserError(f"{override!r} has no key; write KEY=VALUE")
        if not value and name in (*GROUPS, *_FILES):
            raise UserError(f"{override!r} names no option of {name}; write {name}=OPTION")
        if not value and name.startswith("hydra"):
            raise UserError(f"{override!r} has no value; write KEY=VALUE")
        if value.strip() == "{}":
            raise UserError(
                f"{override} has no effect, because tables are merged; set single entries, as in {name}.NAME=VALUE"
            )


def explain(error: Exception, unparsable: str | None = None) -> str:
    """Returns a one-line message for an error of Hydra or OmegaConf: what is wrong, and what to write instead."""
    if unparsable is not None:
        return f"cannot read {unparsable!r}; an override is key=value, and a value with commas or brackets needs quotes"
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = " ".join(" ".join(str(cause).split()) for cause in causes[:2])
    ours = re.search(r"UserError raised while resolving interpolation: (.*?)(?: full_key: .*)?$", text)
    if ours:  # a resolver that `register` defines refused a value
        return ours.group(1)
    missing = re.search(r"(?:Could not find|In '[^']*': Could not (?:find|load)) '(\w+)/([^']+)'", text)
    if missing:
        return _no_option(missing.group(1), missing.group(2), text)
    group = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group:
        return renamed.unknown_key(group.group(1), [*GROUPS, *_FILES, *domains.leaves(Config)])
    unknown = re.search(r"Key '([^']+)' (?:is not in struct|not in '\w+')", text)
    override = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text)
    full_key = re.search(r"full_key: ([\w.]+)", text)
    if unknown and (override or full_key):
        key = max((match.group(1) for match in (full_key, override) if match), key=len)
        line = renamed.unknown_key(key, [*GROUPS, *_FILES, *domains.leaves(Config)])
        if key.startswith("schedule.lr_mults."):
            line = f"schedule.lr_mults has no part {unknown.group(1)!r} in this recipe; +{key}=VALUE adds one"
        return line
    where = f"{full_key.group(1)}: " if full_key else ""
    text = re.sub(r"^Error merging override .*? (?=Value )", "", text)
    text = re.split(r"\s*(?:full_key|reference_type|object_type):|\s+Set the environment variable", text)[0]
    return f"configuration: {where}{text.strip()}"


def _no_option(group: str, option: str, text: str) -> str:
    """Returns the message for an option without a file; Hydra's `text` lists the options, including plug-ins' ones."""
    listed = re.search(rf"Available options in '{group}': (.*?) Config search path", text)
    options = listed.group(1).split() if listed else [path.stem for path in (conf_folder() / group).glob("*.yaml")]
    if group == "schedule" and "_" in option:
        fitting = [name for name in options if name.endswith(f"_{option.rsplit('_', 1)[1]}")]
        known = f" ({', '.join(sorted(fitting))})" if fitting else ""
        return f"schedule={option} is no option: {_NO_RECIPE}{known}"
    line = renamed.unknown_option(group, option, options)
    leaf = LEAVES.get(group)
    return (
        f"{line}; for a size that has no file set {leaf}={option}"
        if leaf and re.fullmatch("[1-9]\\d*", option)
        else line
    )


def first_unparsable(arguments: list[str]) -> str | None:
    """Returns the first override that Hydra's parser refuses; None if it accepts all."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for argument in arguments:
        try:
            if not argument.startswith("-"):
                parser.parse_override(argument)
        except HydraException:
            return argument
    return None


def quote_paths(arguments: Iterable[str]) -> list[str]:
    """Quotes the names of existing files and folders that Hydra's parser would refuse or split at commas."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        try:
            read = parser.parse_override(argument) if equals and not argument.startswith("-") else None
            plain = read is None or (not read.is_sweep_override() and not isinstance(read.value(), (list, dict)))
        except HydraException:
            plain = False
        if not plain and _exists(value):
            argument = f"{key}={quoted(value)}"
        found.append(argument)
    return found


def quoted(value: str) -> str:
    """Quotes a text for Hydra's grammar, if its characters require that."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # not a possible file name
        return False


def typed_value(arguments: Iterable[str], key: str) -> object:
    """Returns the last value of a key, unquoted; Hydra's sweep object for several values; None if it is not set."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found = None
    for argument in arguments:
        if naming.split_override(argument)[0] == key and "=" in argument:
            try:
                found = OverridesParser.create().parse_override(argument).value()
            except HydraException as error:
                raise UserError(explain(error, argument)) from error
    return found


def check_typed(arguments: list[str], *, sweep: bool) -> int:
    """Counts the jobs that the overrides describe.

    Args:
        arguments: the overrides.
        sweep: whether -m (a sweep) was given.

    Returns:
        the number of jobs.

    Raises:
        UserError: there are several values without -m, no value at all, or several values of a key that all jobs share.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    count = 1
    for argument in arguments:
        try:
            read = None if argument.startswith("-") else OverridesParser.create().parse_override(argument)
            if read is None or not read.is_sweep_override():
                continue
            values = sum(1 for _ in read.sweep_iterator()) if read.is_discrete_sweep() else 1
        except (HydraException, ValueError):
            continue  # Hydra reports it
        if not sweep:
            raise UserError(f"{argument} has several values: add -m to run them all, or quote it as one value")
        if not values:
            raise UserError(f"{argument} has no value, so the sweep has no jobs; give it one or several")
        key = naming.key_of(argument)
        if key in ("name", "hydra.sweep.dir"):
            raise UserError(f"{argument}: all jobs of a sweep are in one folder; give it one {key}")
        count *= values
    return count


def register(arguments: list[str], *, stored: Iterable[str] = ()) -> None:
    """Registers the schema with Hydra, and the resolvers that make folder names from the overrides.

    Args:
        arguments: all overrides.
        stored: the overrides among them that come from an earlier run or a checkpoint; they are left out of names.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from adafocus.config.searchpath import add_folders

    ConfigStore.instance().store(name="schema", node=Config)
    add_folders(conf_folder())
    stored = set(stored)
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    overrides = [argument for argument in overrides if argument not in stored]
    shared, texts = naming.shared_keys(overrides), naming.distinct(overrides)
    # The folder of a sweep is named after all its overrides, not after those of one job.
    whole = naming.folder_name(overrides)

    def name_run(name: str | None, typed: list[str]) -> str:
        return naming.check_name(name) if name else naming.folder_name([text for text in typed if text not in stored])

    def name_sweep(name: str | None) -> str:
        return naming.check_name(name) if name else whole

    def name_job(typed: list[str]) -> str:
        return naming.folder_name([text for text in typed if text not in stored], without=shared, texts=texts)

    OmegaConf.register_new_resolver("div", lambda whole, part: int(whole) // int(part), replace=True)
    OmegaConf.register_new_resolver("run_name", name_run, replace=True)
    OmegaConf.register_new_resolver("sweep_name", name_sweep, replace=True)
    OmegaConf.register_new_resolver("job_name", name_job, replace=True)
