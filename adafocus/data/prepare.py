"""Checks a whole data set by decoding every file completely."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from adafocus.core.errors import UserError
from adafocus.data.frames import decode_folder
from adafocus.data.paths import encode, printable
from adafocus.data.processes import in_processes
from adafocus.data.splits import LAYOUTS, Where, listed
from adafocus.data.video import decode_all


@dataclass
class CheckResult:
    """Result of decoding one file completely.

    Attributes:
        path: the path in the list.
        ok: whether every frame can be decoded.
        num_frames: number of frames that can be decoded.
        listed: number of frames according to the list; None if the list does not say.
        reason: why it is unreadable, or a remark about a readable file.
    """

    path: str
    ok: bool
    num_frames: int = 0
    listed: int | None = None
    reason: str = ""


def _decode(path: Path) -> int:
    """Decodes a video file or frame folder and returns its number of frames; VideoError if one cannot be decoded."""
    return decode_folder(path) if path.is_dir() else decode_all(path)


def check_files(
    items: Sequence[tuple[str, int | None]],
    root: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """Decodes every file completely, `workers` at a time.

    Args:
        items: (path relative to root, number of frames according to the list or None) for each file.
        root: folder of the videos.
        workers: number of processes.
        timeout: time limit in seconds for each file.
        progress: called with (done, all).

    Returns:
        one result for each item, in the same order. A file that crashes the decoder does not end the check.
    """
    results = [CheckResult(path, False, listed=count) for path, count in items]
    outcomes = in_processes(_decode, [root / path for path, _ in items], workers, timeout)
    for done, outcome in enumerate(outcomes, start=1):
        result, frames = results[outcome.number], outcome.result
        result.ok, result.num_frames, result.reason = frames is not None, frames or 0, outcome.reason
        if result.ok and result.listed is not None and result.listed != frames:
            result.reason = f"{frames} frames decode, the list says {result.listed}"
        if progress is not None:
            progress(done, len(items))
    return results


def check_folder(
    root: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """Decodes all videos that training and evaluation would find in a folder; arguments are those of `check_files`."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    records = listed(Where(root, root))
    if not records:
        raise UserError(f"{root}: expected {LAYOUTS}; found no videos")
    items = list(dict.fromkeys((record.path, record.num_frames) for record in records))
    return check_files(items, root, workers=workers, timeout=timeout, progress=progress)


def write_report(results: Sequence[CheckResult], folder: Path) -> None:
    """Writes check.json and bad.txt, which dataset.bad_list reads: a path, a tab and the reason on each line."""
    folder.mkdir(parents=True, exist_ok=True)
    bad = [result for result in results if not result.ok]
    lines = [f"{result.path}\t{printable(result.reason)}\n" for result in bad]
    (folder / "bad.txt").write_bytes(encode("".join(lines)))
    counts = {"files": len(results), "bad": len(bad), "results": [asdict(result) for result in results]}
    (folder / "check.json").write_text(json.dumps(counts, indent=1), encoding="ascii")
