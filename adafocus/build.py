"""Configuration -> network, stage, settings (and, through `clips`, data): where configuration and code meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adafocus.backbones import BACKBONES, check_backbone
from adafocus.backbones.temporal import Temporal, insert, with_flow_input
from adafocus.build_data import Data, data, frame_plan, protocol_line, tested_plan, trained_on, views
from adafocus.checkpoints import imagenet_weights
from adafocus.config.schema import BackboneConfig, Config
from adafocus.core import registry
from adafocus.core.cost import Cost
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.stage import Stage
from adafocus.data.transforms import Normalize
from adafocus.evaluation.cost import count
from adafocus.methods import method_of
from adafocus.methods.recognizer.online import why_no_stream
from adafocus.training.lr_schedule import learning_rates, scaled_rate
from adafocus.training.trainer import Settings

__all__ = [
    "Data",
    "channels",
    "cost",
    "data",
    "frame_plan",
    "meta_model",
    "model",
    "not_needed",
    "protocol_line",
    "rate_line",
    "seeded_model",
    "settings",
    "stage",
    "stream_line",
    "tested_plan",
    "trained_on",
    "views",
]


def model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """The network on the current default device; `weights=False` leaves the backbones as they are drawn."""
    backbone, method = config.backbone, method_of(config)
    tiny = {"strides": backbone.focus_strides or None, "coordinates": backbone.coordinates}
    focus = _backbone(backbone.focus, backbone.focus_channels, **tiny)
    if weights:
        imagenet_weights(focus, backbone.focus, backbone.weights)
    if config.dataset.modality == "flow":
        if backbone.coordinates:
            raise UserError("backbone.coordinates=true needs RGB frames; leave it out, or set dataset.modality=rgb")
        with_flow_input(focus, channels(config))
    glance = None
    frames, temporal = method.frame_plan(), _temporal(backbone)
    if method.has_glance:
        tiny["strides"] = backbone.glance_strides or None
        glance = _backbone(backbone.glance, backbone.glance_channels, **tiny)
        if weights:
            imagenet_weights(glance, backbone.glance, backbone.glance_weights or backbone.weights)
        insert(glance, frames.glance, temporal)
    insert(focus, frames.focus or frames.glance, temporal)
    return method.network(glance, focus, num_classes)


def channels(config: Config) -> int:
    """Number of channels of a frame: 3 for RGB, or x and y of dataset.snippet consecutive flow fields."""
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
    """Builds a backbone by name; `channels` and the other options apply to tiny networks only."""
    if name in registry.BACKBONES:
        return check_backbone(name, registry.BACKBONES[name]())
    if name not in BACKBONES:
        raise UserError(f"backbone {name!r} is unknown; choose one of {', '.join((*BACKBONES, *registry.BACKBONES))}")
    if not name.startswith("tiny"):
        return BACKBONES[name]()
    return BACKBONES[name](channels=tuple(channels), **tiny) if channels else BACKBONES[name](**tiny)


def seeded_model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """`model` with initial weights that are a function of the seed; torch's global random state is not changed.

    ImageNet weights are not downloaded if `init.from` replaces them.
    """
    weights = weights and not config.start()
    with torch.random.fork_rng(), as_user_error():
        torch.manual_seed(config.seed)
        return model(config, num_classes, weights=weights)


def meta_model(config: Config, num_classes: int) -> nn.Module:
    """The network on the meta device, without weights, for what depends on its shapes only."""
    with torch.device("meta"), as_user_error():
        return model(config, num_classes, weights=False)


def cost(config: Config, num_classes: int) -> Cost:
    """The cost in multiply-adds (MACs) of one test clip of the protocol."""
    return count(meta_model(config, num_classes), tested_plan(config).clip, config.dataset.frame_size, channels(config))


def stage(config: Config, network: nn.Module) -> Stage:
    """What learns, for a network of `model`."""
    made = method_of(config).stage(network, Normalize(config.dataset.mean, config.dataset.std))
    if config.schedule.frozen:
        with as_user_error():
            made.freeze(config.schedule.frozen)
    return made


def not_needed(config: Config) -> tuple[str, ...]:
    """Prefixes of state dict keys that evaluation of this stage does not need, so that a checkpoint may lack them."""
    return method_of(config).not_needed


def stream_line(config: Config, network: nn.Module) -> str | None:
    """A log line that says whether a network with the online shift can run frame by frame; None without that shift."""
    if config.backbone.shift != "online":
        return None
    return why_no_stream(network) or "this model will run on streams: `adafocus predict RUN VIDEO --online`"


def settings(config: Config, train_size: int, *, cuda: bool = False) -> Settings:
    """The options of the training loop for a training set of `train_size` clips.

    Args:
        config: the configuration.
        train_size: number of training clips.
        cuda: whether training runs on a GPU, where precision=auto means schedule.precision.
    """
    schedule = config.schedule
    if train_size < schedule.batch_size:
        raise UserError(
            f"schedule.batch_size={schedule.batch_size} is larger than the training set of {train_size} videos"
        )
    steps = train_size // schedule.batch_size
    rate = scaled_rate(schedule.lr, schedule.batch_size, schedule.base_batch_size, schedule.lr_scaling)
    rates = learning_rates(
        rate=rate,
        epochs=schedule.epochs,
        steps_per_epoch=steps,
        shape=schedule.lr_schedule,
        per_epoch=schedule.step_per_epoch,
        horizon=schedule.cosine_epochs,
        milestones=schedule.milestones,
        decay=schedule.lr_gamma,
        warmup_epochs=schedule.warmup_epochs,
    )
    return Settings(
        epochs=schedule.epochs,
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
    )


def rate_line(config: Config) -> str:
    """A log line with the batch size, and with the learning rate before and after scaling."""
    schedule = config.schedule
    rate = scaled_rate(schedule.lr, schedule.batch_size, schedule.base_batch_size, schedule.lr_scaling)
    share = schedule.batch_size // config.devices // schedule.accumulation_steps
    return (
        f"batch {schedule.batch_size} = {config.devices} device(s) x {share} clips x "
        f"{schedule.accumulation_steps} accumulation; "
        f"rate {schedule.lr:g} at {schedule.base_batch_size} -> {rate:g} at {schedule.batch_size} "
        f"({schedule.lr_scaling})"
    )
