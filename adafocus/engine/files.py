"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, write: Any) -> None:
    """Calls `write(file)` on a temporary neighbor and moves it to `path`: a reader or a kill never meets a half-written file."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Bytes of a file name that are not UTF-8 are lone surrogates in Python; as \udcff they are what JSON has for them.
    data = text.encode("utf-8", "backslashreplace")
    write_bytes(path, lambda file: file.write(data + b"\n"))


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
