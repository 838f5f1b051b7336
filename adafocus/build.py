"""Configuration -> data, model, stage, settings: the only file that knows both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert, with_flow_input
from adafocus.data import annotations
from adafocus.data.annotations import Split
from adafocus.data.dataset import ClipSource, GlyphClips, VideoClips, View
from adafocus.data.glyphs import GlyphVideos
from adafocus.data.transforms import Normalise
from adafocus.data.video import installed_readers
from adafocus.engine.loop import Settings
from adafocus.engine.schedule import learning_rates, scaled_rate
from adafocus.errors import UserError
from adafocus.models.adafocus_v2 import AdaFocusV2
from adafocus.models.recogniser import Recogniser
from adafocus.schema import BackboneConfig, Config, DatasetConfig
from adafocus.stages.base import Stage, batch_norms
from adafocus.stages.joint import JointStage
from adafocus.stages.whole_frames import WholeFrames
from adafocus.weights import imagenet_weights


@contextmanager
def _as_user_error() -> Iterator[None]:
    """The rooms below know no configuration: what they refuse as a value is here what the user chose."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error


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
    with _as_user_error():
        return _glyphs(config) if config.dataset.source == "glyphs" else _files(config)


def _glyphs(config: Config) -> Data:
    dataset = config.dataset
    splits = {
        split: GlyphVideos(
            split=split,
            size=size,
            frames=config.segments.glance,
            frame_size=dataset.frame_size,
            classes=dataset.classes or 10,
            glyph_size=dataset.glyph_size,
            task=dataset.task,
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
    clips = {name: GlyphClips(videos) for name, videos in splits.items()}
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
    average = "" if test.views == 1 else f", mean of {config.protocol.average}"
    return Data(
        VideoClips(train.records, videos, validate, **shared),
        validated,
        tested,
        classes,
        {"train": train.summary(), "evaluate": val.summary()},
        {"train": train.missing + train.bad, "evaluate": val.missing + val.bad},
        f"{config.protocol.name}: {test.protocol()}{average}",
        f"{config.protocol.name}: {validate.protocol()}",
        test.views,
    )


def _splits(dataset: DatasetConfig, root: Path) -> tuple[list[str], Split, Split]:
    """Class names and both splits: from lists where there are any, else from train/ and val/ or from class folders."""
    lists = [root / (dataset.train_list or "train.txt"), root / (dataset.val_list or "val.txt")]
    if dataset.train_list or dataset.val_list or lists[0].is_file():
        class_file = root / (dataset.class_file or "classes.txt")
        if not class_file.is_file() and not dataset.class_file:
            raise UserError(
                f"{root} has lists but no classes.txt; write one class name a line, or set dataset.class_file"
            )
        classes = annotations.read_classes(class_file)
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
    shared = {
        "short": dataset.short_videos,
        "window": protocol.window,
        "training_rule": protocol.train,
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
        evaluation_rule=protocol.validate or protocol.test,
        **shared,
    )
    side = protocol.short_side or short_side
    test = View(
        segments=protocol.segments or config.segments.glance,
        size=side if protocol.full else dataset.frame_size,
        short_side=side,
        evaluation_rule=protocol.test,
        crops=protocol.crops,
        flush=protocol.flush,
        **shared,
    )
    return test, validate


def model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """The network on the current default device; `weights=False` leaves the backbones as they are drawn."""
    backbone = config.backbone
    tiny = {"strides": backbone.focus_strides or None, "coordinates": backbone.coordinates}
    focus = _backbone(backbone.focus, backbone.focus_channels, **tiny)
    if weights:
        imagenet_weights(focus, backbone.focus, backbone.weights)
    method = config.method
    if method.name == "recogniser":
        if config.dataset.modality == "flow":
            if backbone.coordinates:
                raise UserError("backbone.coordinates goes with pictures, not with dataset.modality=flow")
            with_flow_input(focus, channels(config))
        insert(focus, config.segments.glance, _temporal(backbone))
        return Recogniser(
            focus,
            num_classes=num_classes,
            segments=config.segments.glance,
            dropout=config.schedule.head_dropout,
            remove_background=method.remove_background,
        )
    if method.name != "adafocus_v2":
        raise UserError(f"method.name={method.name!r} is unknown; choose adafocus_v2 or recogniser")
    glance = _backbone(backbone.glance, backbone.glance_channels)
    if weights:
        imagenet_weights(glance, backbone.glance, backbone.glance_weights or backbone.weights)
    return AdaFocusV2(
        glance,
        focus,
        num_classes=num_classes,
        segments=config.segments.glance,
        patch_size=config.patch.size,
        frame_size=config.dataset.frame_size,
        glance_size=backbone.glance_size,
        glance_resize=backbone.glance_resize,
        policy_hidden=backbone.policy_hidden,
        classifier_width=backbone.classifier_width,
        dropout=config.schedule.dropout,
        head_dropout=config.schedule.head_dropout,
        order=method.order,
    )


def channels(config: Config) -> int:
    """Channels of a frame: R, G, B, or x and y of consecutive flow fields."""
    return 2 * config.dataset.snippet if config.dataset.modality == "flow" else 3


def _temporal(backbone: BackboneConfig) -> Temporal:
    return Temporal(
        shift=backbone.shift,
        div=backbone.shift_div,
        place=backbone.shift_place,
        pool=backbone.temporal_pool,
        adaptive=backbone.adaptive,
        non_local=backbone.non_local,
    )


def _backbone(name: str, channels: list[int], **tiny: Any) -> nn.Module:
    """A backbone by name; channels and the other options are the tiny nets'."""
    if name not in BACKBONES:
        raise UserError(f"backbone {name!r} is unknown; choose one of {', '.join(BACKBONES)}")
    if not name.startswith("tiny"):
        return BACKBONES[name]()
    return BACKBONES[name](channels=tuple(channels), **tiny) if channels else BACKBONES[name](**tiny)


def stage(config: Config, network: nn.Module) -> Stage:
    """What learns, for a network of `model`."""
    normalise = Normalise(config.dataset.mean, config.dataset.std)
    if config.stage.name != "joint":
        raise UserError(f"stage={config.stage.name} does not exist for method={config.method.name}; choose joint")
    if config.method.name == "recogniser":
        schedule = config.schedule
        return WholeFrames(
            network,
            normalise,
            groups=schedule.groups,
            head_rate=schedule.head_rate,
            flow=config.dataset.modality == "flow",
            norms="partial" if schedule.partial_norm else "frozen" if schedule.freeze_norm else "all",
        )
    frozen = batch_norms(network) if config.schedule.freeze_norm else []
    return JointStage(
        network,
        normalise,
        seed=config.seed,
        rates=config.schedule.rates,
        where=config.method.where,
        controls=config.evaluate.controls,
        frozen_norm=frozen,
    )


def settings(config: Config, train_size: int) -> Settings:
    """The loop's numbers for a training set of `train_size` clips."""
    schedule = config.schedule
    if train_size < schedule.batch:
        raise UserError(f"schedule.batch={schedule.batch} is larger than the training set of {train_size} videos")
    steps = train_size // schedule.batch
    rate = scaled_rate(schedule.rate, schedule.batch, schedule.base_batch, schedule.scaling)
    rates = learning_rates(
        rate=rate,
        epochs=schedule.epochs,
        steps_per_epoch=steps,
        shape=schedule.shape,
        per_epoch=schedule.per_epoch,
        horizon=schedule.horizon,
        milestones=schedule.milestones,
        decay=schedule.decay,
        warmup_epochs=schedule.warmup_epochs,
    )
    return Settings(
        epochs=schedule.epochs,
        steps_per_epoch=steps,
        rates=rates,
        seed=config.seed,
        parts=schedule.accumulate,
        optimiser=schedule.optimiser,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        clip=schedule.clip,
        precision=config.precision,
        metric=config.dataset.metric,
        evaluate_every=schedule.evaluate_every,
        evaluate_last=schedule.evaluate_last,
        save_seconds=config.output.save_seconds,
        log_every=config.output.log_every,
        bad_limit=int(config.dataset.max_bad_fraction * train_size),
    )


def rate_line(config: Config) -> str:
    """What became of the recipe's rate, in one line for the log."""
    schedule = config.schedule
    rate = scaled_rate(schedule.rate, schedule.batch, schedule.base_batch, schedule.scaling)
    share = schedule.batch // config.devices // schedule.accumulate
    return (
        f"batch {schedule.batch} = {config.devices} device(s) x {share} clips x {schedule.accumulate} accumulation; "
        f"rate {schedule.rate:g} at {schedule.base_batch} -> {rate:g} at {schedule.batch} ({schedule.scaling})"
    )


def seeded_model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """`model` with initial weights that are a function of the seed; the caller's random state is left alone.

    Weights that `init.from` replaces are not fetched.
    """
    weights = weights and not config.init.get("from")
    with torch.random.fork_rng(), _as_user_error():
        torch.manual_seed(config.seed)
        return model(config, num_classes, weights=weights)
