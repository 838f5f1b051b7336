"""From what is typed to a typed configuration: the way through Hydra, and its errors in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adafocus import naming
from adafocus.core.errors import UserError

#: Where a choice without a file belongs: a number can be set directly.
LEAVES = {"patch": "patch.size", "segments": "segments.glance"}


def conf_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"no conf/ folder in {package} or beside it; the installation is incomplete")


def compose(typed: list[str]) -> Any:
    """The typed configuration of these overrides, without a run."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from adafocus import config

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = naming.quote_numbers(typed)
    try:
        register(arguments)
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return config.from_node(hydra_compose("config", arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, first_unparsable(arguments))) from error


def explain(error: Exception, unparsable: str | None = None) -> str:
    """Hydra's and OmegaConf's errors as one line: what is wrong, and what to type instead."""
    import re

    if unparsable is not None:
        return f"cannot read {unparsable!r}; an override is key=value, and a value with commas or brackets needs quotes"
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = " ".join(" ".join(str(cause).split()) for cause in causes[:2])
    missing = re.search(r"(?:Could not find|In '[^']*': Could not (?:find|load)) '(\w+)/([^']+)'", text)
    if missing:
        group, option = missing.groups()
        options = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
        leaf = LEAVES.get(group)
        hint = f"; for a size that has no file set {leaf}={option}" if leaf and option.isdigit() else ""
        if group == "schedule":
            hint = "; this method has no recipe for this dataset: choose a schedule"
        return f"{group}={option} is no option; choose one of {', '.join(options)}{hint}"
    unknown = re.search(r"Key '([^']+)' is not in struct|Key '([^']+)' not in '(\w+)'", text)
    override = re.search(r"Could not override '([^']+)'", text)
    if override and unknown:
        return f"{override.group(1)} is not a key of the configuration; `python run.py --cfg job` shows all keys"
    full_key = re.search(r"full_key: ([\w.]+)", text)
    where = f"{full_key.group(1)}: " if full_key else ""
    text = re.split(r"\s*(?:full_key|reference_type|object_type):|\s+Set the environment variable", text)[0]
    return f"configuration: {where}{text.strip()}"


def first_unparsable(arguments: list[str]) -> str | None:
    """The first override that Hydra's grammar refuses."""
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


def register(arguments: list[str]) -> None:
    """The schema, and the resolver that names folders after what was typed."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from adafocus.schema import Config

    ConfigStore.instance().store(name="schema", node=Config)
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    shared = naming.shared_keys(overrides)
    OmegaConf.register_new_resolver("div", lambda whole, part: int(whole) // int(part), replace=True)
    OmegaConf.register_new_resolver(
        "run_name", lambda name, typed: name or naming.folder_name(list(typed)), replace=True
    )
    # All jobs of a sweep are in one folder, which is named after the whole command and not after one job.
    whole = naming.folder_name(overrides)
    OmegaConf.register_new_resolver("sweep_name", lambda name: name or whole, replace=True)
    OmegaConf.register_new_resolver(
        "job_name", lambda typed: naming.folder_name(list(typed), without=shared), replace=True
    )
