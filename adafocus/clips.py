"""Configuration -> data sets and how they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adafocus.core.errors import UserError, as_user_error
from adafocus.core.frames import FramePlan
from adafocus.data import annotations
from adafocus.data.annotations import Split
from adafocus.data.dataset import ClipSource, GlyphClips, VideoClips
from adafocus.data.glyphs import GlyphVideos
from adafocus.data.video import installed_readers
from adafocus.data.view import View
from adafocus.methods import method_of
from adafocus.schema import Config, DatasetConfig


@dataclass
class Data:
    """Both splits of a data set, its class names, what was found of it, and how a score on it is measured.

    Attributes:
        protocol, validation: how scores on `test` and on `validate` are measured, in one line each.
        validate: the evaluation split as training looks at it, which may be with fewer views than `test`.
        test: the evaluation split as the protocol looks at it; the same object where there is no difference.
        views: clips times crops of a video in `test`.
    """

    train: ClipSource
    validate: ClipSource
    test: ClipSource
    classes: list[str]
    found: dict[str, dict[str, object]]
    missing: dict[str, list[str]]
    protocol: str
    validation: str
    views: int = 1


def data(config: Config) -> Data:
    """The data sets, checked against what is expected of them.

    Raises:
        UserError: missing files, wrong labels, other counts than expected.
    """
    with as_user_error():
        return _glyphs(config) if config.dataset.source == "glyphs" else _files(config)


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
    protocol = f"glyphs ({dataset.task}), {len(splits['val'])} drawn videos of {dataset.frame_size} pixels"
    own = () if plan.first else (plan.glance,)
    sets = (*own, *(size for size in (plan.fixed_focus or plan.candidates,) if size))
    clips = {
        name: GlyphClips(videos, sets, candidates=plan.candidates, first=plan.first) for name, videos in splits.items()
    }
    return Data(
        clips["train"], clips["val"], clips["val"], classes, found, {"train": [], "evaluate": []}, protocol, protocol
    )


def _files(config: Config) -> Data:
    dataset = config.dataset
    root = Path(dataset.root).expanduser()
    if not root.is_dir():
        raise UserError(f"dataset.root={root} is not a folder")
    if dataset.frame_template is None and dataset.reader != "auto" and dataset.reader not in installed_readers():
        raise UserError(
            f"dataset.reader={dataset.reader} is not installed; installed: {', '.join(installed_readers())}"
        )
    classes, train, val = _splits(dataset, root)
    if dataset.classes is not None and len(classes) != dataset.classes:
        raise UserError(f"{root}: {len(classes)} classes found, {dataset.classes} expected (dataset.classes)")
    videos = root / dataset.videos
    bad_list = annotations.read_bad_list(Path(dataset.bad_list).expanduser() if dataset.bad_list else None)
    train.expected, val.expected = dataset.expected_train, dataset.expected_val
    annotations.look_up(train, videos, bad_list=bad_list, keep_missing=False)
    annotations.look_up(val, videos, bad_list=bad_list, keep_missing=True)
    _compare_counts(dataset, {"training": train, "evaluation": val})
    if dataset.limit is not None:
        for split in (train, val):
            split.records = split.records[:: -(-len(split.records) // dataset.limit)]
    test, validate = views(config, classes)
    shared = {
        "seed": config.seed,
        "template": dataset.frame_template,
        "reader": dataset.reader,
        "flow": dataset.modality == "flow",
        "timeout": dataset.video_timeout,
        "cache_bytes": dataset.cache_megabytes * 2**20 // max(1, config.loader.workers) // config.devices,
    }
    known_bad = dict.fromkeys(val.bad, "named by dataset.bad_list") | dict.fromkeys(val.missing, "no such file")
    tested = VideoClips(val.records, videos, test, known_bad=known_bad, **shared)
    validated = tested
    if validate != test:
        validated = VideoClips(val.records, videos, validate, known_bad=known_bad, **shared)
    return Data(
        VideoClips(train.records, videos, validate, **shared),
        validated,
        tested,
        classes,
        {"train": train.summary(), "evaluate": val.summary()},
        {"train": train.missing + train.bad, "evaluate": val.missing + val.bad},
        protocol_line(config, test),
        protocol_line(config, validate),
        test.views,
    )


def _splits(dataset: DatasetConfig, root: Path) -> tuple[list[str], Split, Split]:
    """Class names and both splits: from lists where there are any, else from train/ and val/ or from class folders."""
    lists = [root / (dataset.train_list or "train.txt"), root / (dataset.val_list or "val.txt")]
    if dataset.train_list or dataset.val_list or lists[0].is_file():
        class_file = root / (dataset.class_file or "classes.txt")
        if class_file.is_file() or dataset.class_file:
            classes = annotations.read_classes(class_file)
        elif dataset.classes is not None:
            classes = [str(number) for number in range(dataset.classes)]
        else:
            raise UserError(
                f"{root} has lists but no classes.txt; write one class name a line, or set dataset.class_file, or "
                f"dataset.classes=N for classes without names"
            )
        read = [
            annotations.read_list(
                path,
                len(classes),
                separator=dataset.separator,
                min_frames=dataset.min_frames,
                divisor=dataset.count_divisor,
            )
            for path in lists
        ]
        return classes, read[0], read[1]
    if (root / "train").is_dir() and (root / "val").is_dir():
        classes = annotations.class_folders(root / "train")
        if extra := sorted(set(annotations.class_folders(root / "val")) - set(classes)):
            raise UserError(f"{root}/val has classes that train has not: {extra[:5]}")
        train, val = (annotations.folder_split(root, below, classes) for below in ("train", "val"))
    else:
        classes = annotations.class_folders(root)
        train, val = annotations.hold_out(annotations.folder_split(root, ".", classes), dataset.hold_out)
    if len(classes) < 2 or not train.records or not val.records:
        raise UserError(
            f"{root}: expected train.txt and val.txt, or train/CLASS/*.mp4 and val/CLASS/*.mp4, or CLASS/*.mp4 with at "
            f"least two classes of two videos; found {len(classes)} classes, {len(train.records)} training and "
            f"{len(val.records)} evaluation videos"
        )
    return classes, train, val


def _compare_counts(dataset: DatasetConfig, splits: dict[str, Split]) -> None:
    for name, split in splits.items():
        found = split.summary()["found"]
        if not found:
            first = f"; first missing: {split.missing[0]}" if split.missing else ""
            raise UserError(
                f"none of the {split.listed} {name} videos is there{first}; check dataset.root and dataset.videos"
            )
        if split.expected is not None and found != split.expected and not dataset.allow_partial:
            raise UserError(
                f"{found} of {split.expected} expected {name} videos found ({len(split.missing)} missing); "
                f"complete them, or accept with dataset.allow_partial=true"
            )


def views(config: Config, classes: list[str]) -> tuple[View, View]:
    """How the protocol looks at videos in its test, and how training looks at them and validates."""
    dataset, protocol = config.dataset, config.protocol
    method, plan = method_of(config), frame_plan(config)
    rule = protocol.test or method.test_frames
    shared = {
        "second": plan.fixed_focus,
        "candidates": plan.candidates,
        "first": plan.first,
        "separate_crops": dataset.separate_crops,
        "short": dataset.short_videos,
        "window": protocol.window,
        "training_rule": protocol.train or method.train_frames,
        "flip": dataset.flip,
        "flip_labels": (annotations.resolve_flip_pairs(dataset.flip_pairs, classes) or None) if dataset.flip else None,
        "scales": tuple(dataset.crop_scales),
        "decode_short_side": dataset.decode_short_side,
        "stretch": dataset.fit == "stretch",
        "snippet": dataset.snippet if dataset.modality == "flow" else 1,
    }
    short_side = dataset.short_side or dataset.frame_size * 256 // 224
    validate = View(
        segments=config.segments.glance,
        size=dataset.frame_size,
        short_side=short_side,
        evaluation_rule=protocol.validate or rule,
        **shared,
    )
    side = protocol.short_side or short_side
    test = View(
        segments=protocol.segments or config.segments.glance,
        size=side if protocol.full else dataset.frame_size,
        short_side=side,
        evaluation_rule=rule,
        crops=protocol.crops,
        flush=protocol.flush,
        **shared,
    )
    return test, validate


def frame_plan(config: Config) -> FramePlan:
    """Which frames of a clip the networks of a run see; with early exit frames are read when they are looked at."""
    return method_of(config).frame_plan(deferred=config.mode == "early_exit")


def protocol_line(config: Config, view: View) -> str:
    """How a score is measured, in one line: the protocol's name and what it means here."""
    average = "" if view.views == 1 else f", mean of {config.protocol.average}"
    return f"{config.protocol.name}: {view.protocol()}{average}"
