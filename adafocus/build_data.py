"""Builds the data sets of a run, and the descriptions of its protocol, from a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from adafocus.config.schema import Config
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.files import is_address
from adafocus.core.frames import FramePlan
from adafocus.core.output import given
from adafocus.core.registry import DATASETS
from adafocus.data.annotations import read_bad_list, resolve_flip_pairs
from adafocus.data.cache import BytesCache, cache_folder
from adafocus.data.collect import Collected, Demands, Division, Trained, collect
from adafocus.data.dataset import ArrayClips, ClipSource, GlyphClips, VideoClips
from adafocus.data.glyphs import GlyphVideos
from adafocus.data.remote import RemoteFiles
from adafocus.data.remote_lists import fetched_lists
from adafocus.data.shards import ShardStorage, read_index
from adafocus.data.splits import Where
from adafocus.data.storage import RemoteFolder, Storage
from adafocus.data.tables import read_table
from adafocus.data.video import installed_readers
from adafocus.data.view import View
from adafocus.methods import method_of


@dataclass
class Data:
    """The data sets of a run.

    Attributes:
        train: training clips; None if the run only evaluates.
        protocol, validation: descriptions, in one line each, of how scores on `test` and on `validate` are measured.
        validate: clips for validation during training, which may have fewer views than `test`, or be other videos.
        test: clips for the final scores; the same object as `validate` if there is no difference.
        found: split -> counts of the videos that were found.
        missing: split -> paths of missing videos.
        unreadable: split -> path -> reason for unreadable videos.
        views: number of views per video (clips times crops) in `test`.
        collected: the videos and classes that were found; None for synthetic videos and data sets of plug-ins.
    """

    train: ClipSource | None
    validate: ClipSource
    test: ClipSource
    classes: list[str]
    found: dict[str, dict[str, Any]]
    missing: dict[str, list[str]]
    protocol: str
    validation: str
    views: int = 1
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    collected: Collected | None = None


def data(
    config: Config,
    *,
    trained: Trained | None = None,
    collected: Collected | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Data:
    """Builds the data sets of a run and checks the numbers of videos and classes.

    Args:
        config: the configuration.
        trained: the data that the evaluated network was trained on; see `trained_on`.
        collected: the videos, if they have been collected already.
        progress: called with (done, all) while files are inspected.

    Raises:
        UserError: files are missing, labels are wrong, or the counts differ from the expected ones.
    """
    with as_user_error():
        if config.dataset.source == "glyphs":
            return _glyphs(config)
        if config.dataset.source in DATASETS:
            return _registered(config)
        return _files(config, collected or _collect(config, trained, progress))


def trained_on(config: Config, content: Mapping[str, Any], file: Path) -> Trained:
    """Returns the data that a network was trained on, as far as its checkpoint, which is not trusted, names them."""
    classes, stored = content.get("classes"), content.get("config")
    dataset = stored.get("dataset") if isinstance(stored, dict) else None
    root = dataset.get("root") if isinstance(dataset, dict) else None
    same = isinstance(root, str) and "\0" not in root and _same_folder(root, config.dataset.root)
    seen: frozenset[str] = frozenset()
    if not same and (file.parent / "split.csv").is_file():
        try:
            table = read_table(file.parent / "split.csv")
        except UserError:  # not a checkpoint of this package, or damaged; only a warning depends on it
            table = None
        seen = frozenset(row.path for row in table.rows if row.split == "train") if table else seen
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return Trained(list(classes) if named and classes else None, same, seen)


def _same_folder(one: str, two: str | None) -> bool:
    paths = [os.path.realpath(os.path.expanduser(path)) for path in (one, two or "")]
    return one == two or paths[0] == paths[1]


def _glyphs(config: Config) -> Data:
    dataset, plan = config.dataset, frame_plan(config)
    splits = {
        split: GlyphVideos(
            split=split,
            size=size,
            frames=dataset.frames or max(plan.glance, plan.focus, plan.candidates),
            frame_size=dataset.frame_size,
            classes=dataset.classes or 10,
            glyph_size=dataset.glyph_size,
            task=dataset.task,
            visible=dataset.visible,
            tints=dataset.tints,
            decoys=dataset.decoys,
            seed=config.seed,
        )
        for split, size in (
            ("train", min(dataset.train_videos, dataset.limit or dataset.train_videos)),
            ("val", min(dataset.val_videos, dataset.limit or dataset.val_videos)),
        )
    }
    found = {
        name: {"listed": len(videos), "expected": len(videos), "found": len(videos), "missing": 0, "unreadable": 0}
        for name, videos in (("train", splits["train"]), ("evaluate", splits["val"]))
    }
    classes = [f"glyph {number}" for number in range(dataset.classes or 10)]
    protocol = f"glyphs ({dataset.task}), {len(splits['val'])} synthetic videos of {dataset.frame_size} pixels"
    own = () if plan.first else (plan.glance,)
    sets = (*own, *(size for size in (plan.fixed_focus or plan.candidates,) if size))
    clips = {
        name: GlyphClips(videos, sets, candidates=plan.candidates, first=plan.first) for name, videos in splits.items()
    }
    return Data(
        clips["train"], clips["val"], clips["val"], classes, found, {"train": [], "evaluate": []}, protocol, protocol
    )


def _registered(config: Config) -> Data:
    """Builds a data set of a plug-in; its "val" split is also the test split."""
    dataset, name = config.dataset, config.dataset.source
    splits = {}
    for split in ("train", "val"):
        arguments = {"seed": config.seed, "root": dataset.root, **dataset.options}
        try:
            signature(DATASETS[name]).bind(split, **arguments)
        except TypeError as error:
            raise UserError(f"dataset.options={dataset.options} do not fit dataset.source={name}: {error}") from error
        splits[split] = DATASETS[name](split, **arguments)
    classes = [str(word) for word in splits["train"].classes]
    for split, videos in splits.items():
        if not len(videos.labels) or not 0 <= min(videos.labels) <= max(videos.labels) < len(classes):
            raise UserError(
                f"dataset.source={name}: the split {split} must have videos, with labels from 0 to {len(classes) - 1}"
            )
    if dataset.classes not in (None, len(classes)):
        raise UserError(f"dataset.source={name} has {len(classes)} classes, not dataset.classes={dataset.classes}")
    test, validate = views(config, classes)

    def clips(split: str, view: View) -> ArrayClips:
        videos, cache = splits[split], _cache_bytes(config)
        made = ArrayClips(videos, videos.labels, view, seed=config.seed, name=f"{name} {split}", cache_bytes=cache)
        if dataset.limit is not None:
            made.records = made.records[:: -(-len(made.records) // dataset.limit)]
        return made

    train, tested = clips("train", validate), clips("val", test)
    validated = tested if validate == test else clips("val", validate)
    found = {
        split: {"listed": len(videos), "expected": None, "found": len(videos), "missing": 0, "unreadable": 0}
        for split, videos in (("train", train), ("evaluate", tested))
    }
    return Data(
        train,
        validated,
        tested,
        classes,
        found,
        {"train": [], "evaluate": []},
        protocol_line(config, test),
        protocol_line(config, validate),
        test.views,
    )


def _collect(config: Config, trained: Trained | None, progress: Callable[[int, int], None] | None) -> Collected:
    dataset = config.dataset
    root_given = given(dataset.root)
    if is_address(root_given):
        if dataset.frame_template is not None:
            raise UserError(f"dataset.root={root_given}: only video files are read from addresses, no frame folders")
        named = [dataset.train_list, dataset.val_list, dataset.test_list, dataset.class_file]
        with fetched_lists(root_given, remote_files(config), [name for name in named if name]) as folder:
            return _collect_from(folder, config, trained, progress)
    root = Path(root_given).expanduser()
    if not os.path.isdir(root):
        raise UserError(f"dataset.root={root} is not a folder")
    return _collect_from(root, config, trained, progress)


def _collect_from(
    root: Path, config: Config, trained: Trained | None, progress: Callable[[int, int], None] | None
) -> Collected:
    """Collects the videos of a folder, or those whose lists or index it holds."""
    dataset = config.dataset
    index = read_index(root, given(dataset.root) if is_address(given(dataset.root)) else None)
    if index is not None and dataset.frame_template is not None:
        raise UserError(f"dataset.root={dataset.root} holds shards of video files; set dataset.frame_template=null")
    if dataset.frame_template is None and dataset.reader != "auto" and dataset.reader not in installed_readers():
        raise UserError(
            f"dataset.reader={dataset.reader} is not installed; installed: {', '.join(installed_readers())}"
        )
    where = Where(
        root,
        root / dataset.videos,
        dataset.train_list,
        dataset.val_list,
        dataset.test_list,
        dataset.class_file,
        dataset.classes,
        dataset.separator,
        dataset.min_frames,
        dataset.count_divisor,
        dataset.group,
    )
    division = Division(dataset.hold_out, dataset.group, dataset.folds, dataset.fold)
    demands = Demands(
        dataset.expected_train,
        dataset.expected_val,
        dataset.allow_partial,
        dataset.limit,
        read_bad_list(Path(dataset.bad_list).expanduser() if dataset.bad_list else None),
        dataset.max_bad_fraction,
        dataset.inspect and dataset.frame_template is None,
        dataset.video_timeout,
        keep_beside=config.mode == "train",
        local=index is None and not is_address(given(dataset.root)),
    )
    evaluation = config.mode == "evaluate"
    try:
        return collect(where, division, demands, trained=trained, evaluation=evaluation, progress=progress, index=index)
    except OSError as error:
        raise UserError(f"dataset.root={root} cannot be read ({error.strerror}: {error.filename})") from error
    except UserError as error:
        if config.mode != "early_exit":
            raise
        raise UserError(f"{error} (mode=early_exit takes its thresholds from training videos)") from error


def _files(config: Config, collected: Collected) -> Data:
    dataset, splits = config.dataset, collected.splits
    storage = _storage(config, collected)
    videos = Path() if storage is not None else Path(given(dataset.root)).expanduser() / dataset.videos
    test, validate = views(config, collected.classes)
    made = partial(
        VideoClips,
        seed=config.seed,
        template=dataset.frame_template,
        reader=dataset.reader,
        flow=dataset.modality == "flow",
        timeout=dataset.video_timeout,
        cache_bytes=_cache_bytes(config),
        storage=storage,
    )

    def clips(name: str, view: View) -> VideoClips:
        split = splits[name]
        known_bad = split.bad | dict.fromkeys(split.missing, "no such file") if name != "train" else {}
        return made(split.records, videos, view, known_bad=known_bad)

    tested = clips("evaluate", test)
    validated = tested
    if "validate" in splits or validate != test:
        validated = clips("validate" if "validate" in splits else "evaluate", validate)
    return Data(
        clips("train", validate) if "train" in splits else None,
        validated,
        tested,
        collected.classes,
        {name: split.summary() for name, split in splits.items()},
        {name: [*split.missing, *split.bad] for name, split in splits.items()},
        protocol_line(config, test),
        protocol_line(config, validate),
        test.views,
        {name: dict(split.bad) for name, split in splits.items()},
        collected,
    )


def remote_files(config: Config) -> RemoteFiles:
    """Reads the videos of a data set behind an address."""
    dataset = config.dataset
    limit = dataset.remote_cache_megabytes * 2**20
    cache = BytesCache(cache_folder() / "remote", limit) if limit else None
    return RemoteFiles(dataset.remote_timeout, cache)


def _storage(config: Config, collected: Collected) -> Storage | None:
    """Where the videos come from; None: files of the data set's folder."""
    root = given(config.dataset.root)
    files = remote_files(config) if is_address(root) else None
    if collected.index is not None:
        return ShardStorage(collected.index, files)
    if files is None:
        return None
    below = config.dataset.videos.strip("/")
    return RemoteFolder(files, root if below == "." else f"{root.rstrip('/')}/{below}")


def _cache_bytes(config: Config) -> int:
    """Returns the share of `dataset.cache_megabytes` of each reading process on this machine, in bytes."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))  # processes of this run on this machine
    return config.dataset.cache_megabytes * 2**20 // max(1, config.loader.workers or 0) // processes


def views(config: Config, classes: list[str]) -> tuple[View, View]:
    """Returns the view of the protocol's test, and the view of training and validation."""
    dataset, protocol = config.dataset, config.protocol
    method, plan = method_of(config), frame_plan(config)
    rule = protocol.test or method.test_frames
    view = partial(
        View,
        second=plan.fixed_focus,
        candidates=plan.candidates,
        first=plan.first,
        separate_crops=dataset.separate_crops,
        short=dataset.short_videos,
        window=protocol.window,
        training_rule=protocol.train or method.train_frames,
        flip=dataset.flip,
        flip_labels=(resolve_flip_pairs(dataset.flip_pairs, classes) or None) if dataset.flip else None,
        scales=tuple(dataset.crop_scales),
        decode_short_side=dataset.decode_short_side,
        stretch=dataset.fit == "stretch",
        randaugment_ops=dataset.randaugment_ops,
        randaugment_magnitude=dataset.randaugment_magnitude,
        snippet=dataset.snippet if dataset.modality == "flow" else 1,
    )
    short_side = dataset.short_side or dataset.frame_size * 256 // 224
    validate = view(
        segments=config.segments.glance,
        size=dataset.frame_size,
        short_side=short_side,
        evaluation_rule=protocol.validate or rule,
    )
    side = protocol.short_side or short_side
    test = view(
        segments=protocol.segments or config.segments.glance,
        size=side if protocol.full else dataset.frame_size,
        short_side=side,
        evaluation_rule=rule,
        crops=protocol.crops,
        flush=protocol.flush,
    )
    return test, validate


def frame_plan(config: Config) -> FramePlan:
    """Returns the frame plan of a run's network; with mode=early_exit frames are decoded on demand."""
    return method_of(config).frame_plan(deferred=config.mode == "early_exit")


def tested_plan(config: Config) -> FramePlan:
    """Returns the frame plan of a test clip of the protocol, which may have more frames than in training (TSN)."""
    plan = frame_plan(config)
    return replace(plan, glance=config.protocol.segments or plan.glance)


def protocol_line(config: Config, view: View) -> str:
    """Describes in one line how a score is measured: the protocol's name, its frames, crops and averaging."""
    average = "" if view.views == 1 else f", mean of {config.protocol.average}"
    return f"{config.protocol.name}: {view.protocol()}{average}"
