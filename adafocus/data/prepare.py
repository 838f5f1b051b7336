"""Tools that look at a whole data set once: the check of every file."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from adafocus.core.errors import UserError
from adafocus.data.annotations import class_folders, folder_split, read_list
from adafocus.data.frames import decode_folder
from adafocus.data.video import VideoError, decode_all


@dataclass
class CheckResult:
    """What a complete decode of one file found.

    Attributes:
        path: as in the list.
        ok: whether every frame decodes.
        num_frames: frames that decode.
        listed: frames that the list promises; None where it says nothing.
        reason: why it is bad, or a remark about a good one.
    """

    path: str
    ok: bool
    num_frames: int = 0
    listed: int | None = None
    reason: str = ""


def _decode(root: str, path: str, answer: Connection) -> None:
    """Decodes one file in a process of its own, so that whatever happens to it happens to nobody else."""
    try:
        video = Path(root) / path
        answer.send((True, decode_folder(video) if video.is_dir() else decode_all(video), ""))
    except VideoError as error:
        answer.send((False, 0, str(error)))


def check_files(
    items: Sequence[tuple[str, int | None]],
    root: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """Decodes every file completely, `workers` at a time, each in a process that is ended after `timeout` seconds.

    Args:
        items: (path below root, frames that the list promises or None).
        root: folder of the videos.
        progress: called with (done, all).

    Returns:
        One result for each item, in the same order. Nothing that a file does ends the check.
    """
    # A fork has the decoders loaded; a file that kills its process leaves the others alone.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    waiting, results = list(enumerate(items))[::-1], [CheckResult(path, False, listed=count) for path, count in items]
    running: dict[Connection, tuple[int, multiprocessing.process.BaseProcess, float]] = {}
    done = 0
    while waiting or running:
        while waiting and len(running) < max(1, workers):
            number, (path, _) = waiting.pop()
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_decode, args=(str(root), path, send), daemon=True)
            process.start()
            send.close()
            running[receive] = (number, process, time.monotonic() + timeout)
        nearest = min(deadline for _, _, deadline in running.values())
        ready = wait(list(running), timeout=max(0.0, nearest - time.monotonic()))
        late = [
            pipe for pipe, (_, _, deadline) in running.items() if pipe not in ready and time.monotonic() >= deadline
        ]
        for pipe in [*ready, *late]:
            number, process, _ = running.pop(pipe)
            _note(results[number], pipe if pipe in ready else None, process, timeout)
            pipe.close()
            done += 1
            if progress is not None:
                progress(done, len(items))
    return results


def _note(
    result: CheckResult, pipe: Connection | None, process: multiprocessing.process.BaseProcess, timeout: float
) -> None:
    """Takes the answer of a finished process, or ends one that is late."""
    if pipe is None:
        process.kill()
        result.reason = f"{result.path}: not decoded within {timeout:g} s"
        process.join()
        return
    try:
        result.ok, result.num_frames, result.reason = pipe.recv()
    except EOFError:  # it died without a word
        process.join()
        result.reason = f"{result.path}: the decoder crashed (exit status {process.exitcode})"
    process.join()
    if result.ok and result.listed is not None and result.listed != result.num_frames:
        result.reason = f"{result.num_frames} frames decode, the list says {result.listed}"


def check_folder(
    root: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """`check_files` for the videos of train.txt and val.txt, or of class folders (also below train/ and val/)."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    lists = [root / name for name in ("train.txt", "val.txt") if (root / name).is_file()]
    if lists:
        records = [record for path in lists for record in read_list(path, None).records]
    else:
        below = [name for name in ("train", "val") if (root / name).is_dir()] or ["."]
        records = [record for name in below for record in folder_split(root, name, class_folders(root / name)).records]
    if not records:
        raise UserError(f"{root} holds neither train.txt or val.txt nor class folders of videos")
    items = list(dict.fromkeys((record.path, record.num_frames) for record in records))
    return check_files(items, root, workers=workers, timeout=timeout, progress=progress)


def write_report(results: Sequence[CheckResult], folder: Path) -> None:
    """`bad.txt` (a path, a tab and the reason on each line; dataset.bad_list reads it) and `check.json` of a check."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    bad = [result for result in results if not result.ok]
    lines = [f"{result.path}\t{result.reason}\n" for result in bad]
    (folder / "bad.txt").write_text("".join(lines), encoding="utf-8")
    counts = {"files": len(results), "bad": len(bad), "results": [asdict(result) for result in results]}
    (folder / "check.json").write_text(json.dumps(counts, indent=1), encoding="utf-8")
