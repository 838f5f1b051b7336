"""Builds network, stage, trainer settings and loss from a configuration; `build_data` builds the data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from adafocus.backbones import BACKBONES, Backbone, check_backbone, library
from adafocus.backbones.features import Features
from adafocus.backbones.temporal import Temporal, insert, with_flow_input
from adafocus.build_data import Data, data, frame_plan, protocol_line, tested_plan, trained_on, views
from adafocus.checkpoints import fit, imagenet_weights, load_file, tensors
from adafocus.config import amounts_of
from adafocus.config.schema import BackboneConfig, Config
from adafocus.core import registry
from adafocus.core.cost import Cost
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.objective import Objective
from adafocus.core.stage import Stage
from adafocus.data.dataset import ClipSource, VideoClips
from adafocus.data.transforms import IMAGENET, Normalize
from adafocus.evaluation.cost import count, multiply_adds
from adafocus.methods import method_of
from adafocus.methods.network import AdaptiveNetwork, Network
from adafocus.methods.options import GlanceSize, Patch
from adafocus.training.lr_schedule import learning_rates, scaled_rate
from adafocus.training.settings import Settings

__all__ = [
    "Data",
    "channels",
    "check_networks",
    "cost",
    "data",
    "frame_plan",
    "meta_model",
    "model",
    "normalization",
    "not_needed",
    "objective",
    "protocol_line",
    "rate_line",
    "sampled_classes",
    "seeded_model",
    "settings",
    "stage",
    "stream_line",
    "tested_plan",
    "trained_on",
    "views",
    "whole_frames_cost",
]


def model(config: Config, num_classes: int, *, weights: bool = True) -> Network:
    """Builds the network on the current default device; `weights=False` leaves the backbones randomly initialized."""
    method = method_of(config)
    focus = _backbone(config, "focus", weights)
    if config.dataset.modality == "flow":
        if config.backbone.coordinates:
            raise UserError("backbone.coordinates=true needs RGB frames; leave it out, or set dataset.modality=rgb")
        with_flow_input(focus, channels(config))
    glance = None
    frames, temporal = method.frame_plan(), _temporal(config.backbone)
    if method.has_glance:
        glance = _backbone(config, "glance", weights)
        insert(glance, frames.glance, temporal)
    insert(focus, frames.focus or frames.glance, temporal)
    return method.network(glance, focus, num_classes)


def channels(config: Config) -> int:
    """Returns the number of channels of a frame: 3 for RGB, or 2 for each of dataset.snippet optical-flow fields."""
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


def _backbone(config: Config, role: str, weights: bool) -> Backbone:
    """Builds the glance or the focus backbone (`role`), with its initial weights if `weights` is true."""
    section = config.backbone
    name, options, size = getattr(section, role), getattr(section, f"{role}_options"), _image_size(config, role)
    source = (section.glance_weights if role == "glance" else None) or section.weights
    if library.is_library(name):
        backbone: Backbone = library.network(name, size, options)
    elif name in registry.BACKBONES:
        try:
            backbone = check_backbone(name, registry.BACKBONES[name](**options))
        except TypeError as error:
            raise UserError(f"backbone.{role}_options do not fit backbone {name!r}: {error}") from error
    elif name not in BACKBONES:
        raise UserError(
            f"backbone {name!r} is unknown; choose one of {', '.join((*BACKBONES, *registry.BACKBONES))}, timm/NAME or "
            f"torchvision/NAME"
        )
    elif name == "tiny_vit":
        try:
            backbone = BACKBONES[name](size, **options)
        except TypeError as error:
            raise UserError(f"backbone.{role}_options do not fit backbone {name!r}: {error}") from error
    elif not name.startswith("tiny"):
        backbone = BACKBONES[name]()
    else:
        channels, strides = getattr(section, f"{role}_channels"), getattr(section, f"{role}_strides")
        chosen = {"channels": tuple(channels)} if channels else {}
        backbone = BACKBONES[name](**chosen, strides=strides or None, coordinates=section.coordinates)
    if isinstance(backbone, Features) and config.dataset.mean is None and config.dataset.modality == "rgb":
        backbone.renormalize(*normalization(config))
    if weights:
        if isinstance(backbone, Features) and library.is_library(name):
            _library_weights(backbone, name, source, size, options)
        else:
            imagenet_weights(backbone, name, source)
    return backbone


def _image_size(config: Config, role: str) -> int:
    """Returns the side in pixels of the images that a backbone sees."""
    method, frame = method_of(config), config.dataset.frame_size
    if role == "glance":
        return (config.backbone.glance_size if GlanceSize in method.options else None) or frame
    return config.patch.size if Patch in method.options else frame


def _library_weights(backbone: Features, name: str, source: str, size: int, options: dict[str, Any]) -> None:
    if source == "none":
        return
    if source == "imagenet":
        state = library.pretrained(name, size, options)
    else:
        state = tensors(load_file(Path(source).expanduser()), source)
    fit(
        backbone, library.converted(backbone, state), f"{name} from {'its library' if source == 'imagenet' else source}"
    )


def check_networks(config: Config, *, fresh: bool) -> None:
    """Checks backbones of torchvision and timm before a run folder is created; does nothing for other backbones.

    Args:
        config: the configuration.
        fresh: whether training starts with new weights, so that pretrained ones are downloaded now.

    Raises:
        UserError: a network does not exist or does not fit the configuration, or its weights cannot be downloaded.
    """
    section, roles = config.backbone, ("glance", "focus") if method_of(config).has_glance else ("focus",)
    names = {role: getattr(section, role) for role in roles}
    if not any(map(library.is_library, names.values())):
        return
    meta_model(config, config.dataset.classes or 2)
    for role, name in names.items():
        source = (section.glance_weights if role == "glance" else None) or section.weights
        if fresh and library.is_library(name) and source == "imagenet" and not config.start():
            library.pretrained(name, _image_size(config, role), getattr(section, f"{role}_options"))


def normalization(config: Config) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation that clips are normalized with: the configured ones, or ImageNet's.

    Without configured ones, a network of timm, torchvision or a plug-in converts clips to the normalization of its own
    training (`backbones.features.Features.renormalize`).
    """
    dataset = config.dataset
    return list(dataset.mean or IMAGENET[0]), list(dataset.std or IMAGENET[1])


def seeded_model(config: Config, num_classes: int, *, weights: bool = True) -> Network:
    """Builds the network with initial weights that depend on the seed only; keeps torch's global random state.

    ImageNet weights are not downloaded if `init.from` replaces them.
    """
    weights = weights and not config.start()
    with torch.random.fork_rng(), as_user_error():
        torch.manual_seed(config.seed)
        return model(config, num_classes, weights=weights)


def meta_model(config: Config, num_classes: int) -> Network:
    """Builds the network on the meta device, without weights, to count its cost or inspect its shapes."""
    with torch.device("meta"), as_user_error():
        return model(config, num_classes, weights=False)


def cost(config: Config, num_classes: int) -> Cost:
    """Counts the multiply-adds (MACs) of one test clip of the protocol."""
    return count(meta_model(config, num_classes), tested_plan(config).clip, config.dataset.frame_size, channels(config))


def whole_frames_cost(config: Config, num_classes: int) -> int | None:
    """Multiply-adds (MACs) if the focus network saw the whole of its frames in one test clip.

    None for networks without one, whose focus network sees whole frames anyway or cannot see them.
    """
    network = meta_model(config, num_classes)
    if not isinstance(network, AdaptiveNetwork) or network.chooses_cells:
        return None
    side, frames = config.dataset.frame_size, list(network.frame_sets.values())[-1]
    try:
        network.focus_net.map_size(side)
    except ValueError:
        return None
    return multiply_adds(network.focus_net, torch.empty(frames, channels(config), side, side, device="meta"))


def stage(config: Config, network: nn.Module) -> Stage:
    """Makes the training stage that the configuration selects, for a network built by `model`."""
    made = method_of(config).stage(network, Normalize(*normalization(config)))
    if config.schedule.frozen:
        with as_user_error():
            made.freeze(config.schedule.frozen)
    return made


def not_needed(config: Config) -> tuple[str, ...]:
    """Returns the prefixes of state-dict keys that evaluation of this stage does not need in a checkpoint."""
    return method_of(config).not_needed


def stream_line(config: Config, network: Network) -> str | None:
    """Returns a log line on whether a network with the online shift can run frame by frame; None without that shift."""
    if config.backbone.shift != "online":
        return None
    return network.why_no_stream() or "this model will run on streams: `adafocus predict RUN VIDEO --online`"


def settings(config: Config, train_size: int, *, cuda: bool = False) -> Settings:
    """Returns the options of the training loop for a training set of `train_size` clips.

    Args:
        config: the configuration.
        train_size: number of training clips.
        cuda: whether training runs on a GPU, where precision=auto means schedule.precision.
    """
    schedule, amounts = config.schedule, amounts_of(config)
    if train_size < amounts.batch_size:
        raise UserError(
            f"schedule.batch_size={schedule.batch_size} is larger than the training set of {train_size} videos"
        )
    steps = train_size // amounts.batch_size
    rate = scaled_rate(amounts.lr, amounts.batch_size, amounts.base_batch_size, schedule.lr_scaling)
    rates = learning_rates(
        rate=rate,
        epochs=amounts.epochs,
        steps_per_epoch=steps,
        shape=schedule.lr_schedule,
        per_epoch=schedule.step_per_epoch,
        horizon=schedule.cosine_epochs,
        milestones=schedule.milestones,
        decay=schedule.lr_gamma,
        warmup_epochs=schedule.warmup_epochs,
    )
    return Settings(
        epochs=amounts.epochs,
        steps_per_epoch=steps,
        rates=rates,
        seed=config.seed,
        parts=schedule.accumulation_steps,
        optimizer=schedule.optimizer,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        clip=schedule.clip_grad_norm,
        precision=config.precision if config.precision != "auto" else schedule.precision if cuda else "fp32",
        metric=config.dataset.metric,
        evaluate_every=schedule.evaluate_every,
        evaluate_last=schedule.evaluate_last,
        save_seconds=config.output.save_seconds,
        log_every=config.output.log_every,
        bad_limit=int(config.dataset.max_bad_fraction * train_size),
        layer_decay=schedule.layer_decay,
        ema_decay=schedule.ema_decay,
        mixup_alpha=schedule.mixup_alpha,
        cutmix_alpha=schedule.cutmix_alpha,
        patience=schedule.patience,
    )


def objective(config: Config, clips: ClipSource, num_classes: int, device: torch.device) -> Objective:
    """Makes the training loss of a prediction; balanced class weights have mean 1 over the training clips."""
    schedule, weights = config.schedule, None
    if schedule.class_weights == "balanced" and isinstance(clips, VideoClips):
        counts = torch.zeros(num_classes, dtype=torch.float64)
        for record in clips.records:  # a training clip has one of its video's labels, sampled uniformly
            counts[list(record.labels)] += 1 / len(record.labels)
        balanced = counts.sum() / (counts.count_nonzero() * counts)
        weights = torch.where(counts > 0, balanced, 0.0).float().to(device)
    return Objective(
        label_smoothing=schedule.label_smoothing,
        class_weights=weights,
        teacher_weight=config.teacher.weight,
        temperature=config.teacher.temperature,
    )


def sampled_classes(config: Config, clips: ClipSource | None) -> list[int] | None:
    """The class of every training clip (its first label) for schedule.sampling=balanced; else None."""
    if config.schedule.sampling != "balanced" or not isinstance(clips, VideoClips):
        return None
    return [record.labels[0] for record in clips.records]


def rate_line(config: Config) -> str:
    """Returns a log line with the batch size, and with the learning rate before and after scaling."""
    schedule, amounts = config.schedule, amounts_of(config)
    rate = scaled_rate(amounts.lr, amounts.batch_size, amounts.base_batch_size, schedule.lr_scaling)
    share = amounts.batch_size // config.devices // schedule.accumulation_steps
    return (
        f"batch {schedule.batch_size} = {config.devices} device(s) x {share} clips x "
        f"{schedule.accumulation_steps} accumulation; "
        f"rate {schedule.lr:g} at {schedule.base_batch_size} -> {rate:g} at {schedule.batch_size} "
        f"({schedule.lr_scaling})"
    )
