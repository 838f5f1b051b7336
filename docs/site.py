"""Hooks of MkDocs: the start page is README.md, and links to files outside docs/ become text on the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds README.md as index.md, with links as seen from docs/."""
    root = Path(config.config_file_path).parent
    text = re.sub(r"\]\((?!\w+:|#)", "](../", (root / "README.md").read_text(encoding="utf-8")).replace(
        "](../docs/", "]("
    )
    files.append(File.generated(config, "index.md", content=text))
    files.remove(files.get_file_from_path("site.py"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The site holds no code and no examples, so only the words of links to them stay."""
    return OUTSIDE.sub(r"\1", markdown)
