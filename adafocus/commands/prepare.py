"""`adafocus prepare`: writes lists and frames of supported data sets, and checks the files of a data set."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adafocus.config.schema import DatasetConfig
from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.data.folders import is_video
from adafocus.data.official import FORMATS, Entry, Official
from adafocus.data.paths import encode, printable
from adafocus.training.logger import counting

_NOTE = """`adafocus prepare check FOLDER` decodes every video of lists or class folders and writes bad.txt and
check.json. `adafocus prepare DATASET ROOT --annotations FOLDER` writes the lists for dataset=DATASET below ROOT
from the official annotation files; with --videos it first extracts frames. The same command continues an
interrupted extraction. `adafocus prepare shard FOLDER OUT` packs the videos of lists or class folders into a few large
files for dataset.root=OUT."""


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus prepare`; returns the exit status: 1 if a file is bad or missing."""
    if argv and argv[0] in FORMATS:
        return _dataset(argv)
    if argv and argv[0] == "shard":
        return _shard(argv[1:])
    names = ", ".join(sorted(FORMATS))
    parser = ArgumentParser(prog="adafocus prepare", description=_NOTE, epilog=f"DATASET: {names}")
    parser.add_argument("what", help="check, or the name of a data set")
    parser.add_argument("root", type=Path, help="folder with train.txt/val.txt lists or class folders of videos")
    parser.add_argument("--output", type=Path, default=None, help="folder for bad.txt and check.json (default: ROOT)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=60.0, help="time limit in seconds for one file")
    options = parser.parse_args(argv)
    if options.what != "check":
        raise UserError(f"prepare {options.what} is unknown; choose check, {names}")
    return _check(options)


def _shard(argv: Sequence[str]) -> int:
    parser = ArgumentParser(prog="adafocus prepare shard", description="Packs videos into tar files with an index.")
    parser.add_argument("root", type=Path, help="folder with lists, a table or class folders, as for dataset=folder")
    parser.add_argument("out", type=Path, help="folder of the shards, for dataset.root")
    parser.add_argument("--videos", default=".", metavar="FOLDER", help="the folder that lists start from")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of a shard (default 1024)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one file may take")
    options = parser.parse_args(argv)
    if not options.root.is_dir():
        raise UserError(f"{options.root} is not a folder")
    if options.megabytes < 1:
        raise UserError(f"--megabytes {options.megabytes} must be at least 1")
    from adafocus.data.pack import pack
    from adafocus.data.splits import Where

    where, size = Where(options.root, options.root / options.videos), options.megabytes * 2**20
    with counting("inspecting") as progress:
        found = pack(
            where, options.out, shard_bytes=size, workers=options.workers, timeout=options.timeout, progress=progress
        )
    for path, reason in found.bad.items():
        sys.stdout.write(f"bad: {printable(path)}: {printable(reason)}\n")
    counts = f"{found.videos} videos, {len(found.bad)} bad, in {found.shards} shards"
    sys.stdout.write(f"{counts}; train with: adafocus run dataset=folder dataset.root={options.out} ...\n")
    return 1 if found.bad else 0


def _check(options: argparse.Namespace) -> int:
    from adafocus.data.prepare import check_folder

    with counting("decoding") as progress:
        results = check_folder(options.root, workers=options.workers, timeout=options.timeout, progress=progress)
    if options.output is None and not os.access(options.root, os.W_OK):
        options.output = Path.cwd()
        sys.stdout.write(f"{options.root} cannot be written: the report goes to {options.output} (--output FOLDER)\n")
    return _say_bad(results, options.output or options.root)


def _say_bad(results: Sequence, folder: Path) -> int:
    from adafocus.data.prepare import write_report

    try:
        write_report(results, folder)
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written ({error.strerror}); choose --output FOLDER") from error
    bad = [result for result in results if not result.ok]
    for result in bad:
        sys.stdout.write(f"bad: {printable(result.path)}: {printable(result.reason)}\n")
    sys.stdout.write(f"{len(results)} files, {len(bad)} bad; {folder / 'bad.txt'}\n")
    return 1 if bad else 0


def _dataset(argv: Sequence[str]) -> int:
    parser = ArgumentParser(prog=f"adafocus prepare {argv[0]}", description=_NOTE)
    parser.add_argument("dataset", choices=sorted(FORMATS))
    parser.add_argument("root", type=Path, help="folder to create; set dataset.root to it later")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the official annotation files")
    parser.add_argument(
        "--videos", type=Path, help="folder with the videos, at any depth; omit it if ROOT has the frames"
    )
    parser.add_argument("--no-frames", action="store_true", help="list the video files, without extracting frames")
    parser.add_argument(
        "--split", type=int, default=1, choices=(1, 2, 3), help="number of the split, for UCF101 and HMDB51"
    )
    parser.add_argument(
        "--short-side", type=int, default=256, help="shorter side of extracted frames (default 256); 0: as stored"
    )
    parser.add_argument("--check", action="store_true", help="afterwards decode every listed file or frame as a check")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    if options.no_frames and not options.videos:
        raise UserError("--no-frames lists video files; name their folder with --videos FOLDER")

    from adafocus.config.compose import compose
    from adafocus.data.official import read_official

    config = compose([f"dataset={options.dataset}", "method=recognizer", "mode=cost"]).dataset
    official = read_official(options.dataset, options.annotations, split=options.split)
    if config.classes is not None and len(official.classes) != config.classes:
        raise UserError(
            f"{options.annotations}: {len(official.classes)} classes, {options.dataset} has {config.classes}"
        )
    found = _video_files(official, options) if options.no_frames else _frame_folders(official, options, config)
    return _write(official, found, options, config)


Found = dict[
    str, tuple[str, int, str]
]  # folder of an entry -> (path for the list, number of frames, reason if there are none)


def _index(folder: Path) -> dict[str, Path]:
    """Returns the video files below a folder by file name without suffix."""
    if not folder.is_dir():
        raise UserError(f"--videos {folder} is not a folder")
    return {path.stem: path for path in sorted(folder.rglob("*")) if is_video(path.name)}


def _file_of(entry: Entry, index: dict[str, Path]) -> Path | None:
    return next((index[stem] for stem in entry.stems if stem in index), None)


def _entries(official: Official) -> list[Entry]:
    return list({entry.folder: entry for entries in official.splits.values() for entry in entries}.values())


def _video_files(official: Official, options: argparse.Namespace) -> Found:
    from adafocus.data.extract import count_video

    index = _index(options.videos)
    files = {entry.folder: _file_of(entry, index) for entry in _entries(official)}
    there = {folder: file for folder, file in files.items() if file is not None}
    found: Found = dict.fromkeys(files, ("", 0, "no such video"))
    with counting("counting frames") as progress, ThreadPoolExecutor(options.workers) as pool:
        for done, (folder, counted) in enumerate(
            zip(there, pool.map(count_video, there.values()), strict=True), start=1
        ):
            found[folder] = (str(there[folder].relative_to(options.videos)), *counted)
            progress(done, len(there))
    return found


def _frame_folders(official: Official, options: argparse.Namespace, config: DatasetConfig) -> Found:
    from adafocus.data.extract import count_frames, extract_all

    root = options.root / config.videos
    entries, template = _entries(official), config.frame_template
    assert template is not None  # the data sets that `adafocus prepare` knows are folders of frames
    if options.videos:
        index = _index(options.videos)
        jobs = [(file, entry.folder) for entry in entries if (file := _file_of(entry, index)) is not None]
        with counting("extracting") as progress:
            done = extract_all(
                jobs,
                root,
                template=template,
                short_side=options.short_side or None,
                workers=options.workers,
                progress=progress,
            )
        found: Found = {result.folder: (result.folder, result.frames, result.reason) for result in done}
    else:
        with ThreadPoolExecutor(options.workers) as pool:
            counts = pool.map(lambda entry: count_frames(root / entry.folder, template), entries)
            found = {entry.folder: (entry.folder, count, "") for entry, count in zip(entries, counts, strict=True)}
    return {entry.folder: found.get(entry.folder, (entry.folder, 0, "")) for entry in entries}


def _write(official: Official, found: Found, options: argparse.Namespace, config: DatasetConfig) -> int:
    """Writes the lists of found and of missing videos and the class file, and prints their counts."""
    root, missing = options.root, 0
    (root / config.class_file).parent.mkdir(parents=True, exist_ok=True)
    (root / config.class_file).write_text("\n".join(official.classes) + "\n", encoding="utf-8")
    expected = {"train": config.expected_train, "val": config.expected_val}
    for name, path in (("train", root / config.train_list), ("val", root / config.val_list)):
        rows, gone = [], []
        for entry in official.splits[name]:
            place, frames, reason = found[entry.folder]
            if frames:
                rows.append(config.separator.join([place, str(frames), *map(str, entry.labels)]))
            else:
                gone.append(f"{entry.folder}\t{reason or 'not there'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode("".join(f"{row}\n" for row in rows)))
        lost = path.with_name(f"missing_{path.name}")
        lost.write_bytes(encode("".join(f"{row}\n" for row in gone)))
        known = f", {expected[name]} expected" if expected[name] else ""
        sys.stdout.write(f"{name}: {len(rows)} of {len(official.splits[name])} videos ({path}){known}\n")
        if gone:
            sys.stdout.write(f"  {len(gone)} missing, named in {lost}; the first: {gone[0].replace(chr(9), ': ')}\n")
        missing += len(gone)
    typed = f"dataset={options.dataset} dataset.root={root}"
    if options.no_frames:
        typed += f" dataset.frame_template=null dataset.videos={options.videos.resolve()}"
    sys.stdout.write(f"train with: adafocus run {typed}{' dataset.allow_partial=true' if missing else ''} ...\n")
    bad = _check_all(found, options, config) if options.check else 0
    return 1 if missing or bad else 0


def _check_all(found: Found, options: argparse.Namespace, config: DatasetConfig) -> int:
    from adafocus.data.prepare import check_files

    root = options.videos if options.no_frames else options.root / config.videos
    items = [(path, frames) for path, frames, _ in found.values() if frames]
    with counting("decoding") as progress:
        results = check_files(items, root, workers=options.workers, progress=progress)
    return _say_bad(results, options.root)
