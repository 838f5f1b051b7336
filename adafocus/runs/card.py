"""The model card of a run: method, data, scores, cost, and statistics of the patch locations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from adafocus.core.errors import printable
from adafocus.runs.compare.render import literal
from adafocus.runs.table import NAMES, multiply_adds, places_line

MOST_CLASSES = 60
ABOUT = ("method", "backbone")  # YAML groups whose chosen options the first line names


def model_card(summary: dict[str, Any], classes: Sequence[str], address: str) -> str:
    """Returns the README.md of a shared network, with the metadata header of the Hugging Face Hub.

    Args:
        summary: content of summary.json. Its texts and the class names are escaped for Markdown and HTML.
        classes: names of the classes.
        address: where the network is shared, for the line of code that loads it.
    """
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), finalize=_escaped, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"macs": multiply_adds, "ends": "{0[0]:.1f} to {0[1]:.1f}".format}
    return made.get_template("card.md.jinja").render(
        summary=summary,
        main=summary["rows"][0],
        metric=NAMES.get(summary["metric"], summary["metric"]),
        about=[key for key in ABOUT if key in (summary.get("choices") or {})],
        places=places_line(summary["places"]) + "." if summary.get("places") else "",
        classes=list(classes),
        address=Markup(repr(address).replace("`", "")),
        most=MOST_CLASSES,
    )


def _escaped(value: object) -> object:
    return value if isinstance(value, Markup) else literal(printable(value))
