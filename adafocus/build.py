"""Configuration -> network, stage, settings (and, through `clips`, data): where configuration and code meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert, with_flow_input
from adafocus.clips import Data, candidates, clip_frames, data, focus_frames, looked_frames, protocol_line, views
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.stage import Stage, batch_norms
from adafocus.data.transforms import Normalize
from adafocus.engine.loop import Settings
from adafocus.engine.schedule import learning_rates, scaled_rate
from adafocus.methods.adafocus_v1.model import AdaFocusV1
from adafocus.methods.adafocus_v1.model_tsm import AdaFocusV1TSM
from adafocus.methods.adafocus_v1.stages import PolicyStage, SupervisedStage
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
from adafocus.methods.adafocus_v2.stage import JointStage
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.recognizer.stage import WholeFrames
from adafocus.methods.uni_adafocus.model import UniAdaFocus
from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM
from adafocus.methods.uni_adafocus.stage import UniAdaFocusStage
from adafocus.schema import BackboneConfig, Config
from adafocus.weights import imagenet_weights

__all__ = [
    "Data",
    "channels",
    "clip_frames",
    "data",
    "focus_frames",
    "looked_frames",
    "model",
    "protocol_line",
    "rate_line",
    "seeded_model",
    "settings",
    "stage",
    "views",
]


def model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """The network on the current default device; `weights=False` leaves the backbones as they are drawn."""
    backbone = config.backbone
    tiny = {"strides": backbone.focus_strides or None, "coordinates": backbone.coordinates}
    focus = _backbone(backbone.focus, backbone.focus_channels, **tiny)
    if weights:
        imagenet_weights(focus, backbone.focus, backbone.weights)
    method = config.method
    if method.name == "recognizer":
        if config.dataset.modality == "flow":
            if backbone.coordinates:
                raise UserError("backbone.coordinates goes with pictures, not with dataset.modality=flow")
            with_flow_input(focus, channels(config))
        insert(focus, config.segments.glance, _temporal(backbone))
        return Recognizer(
            focus,
            num_classes=num_classes,
            segments=config.segments.glance,
            dropout=config.schedule.head_dropout,
            remove_background=method.remove_background,
        )
    if method.name not in ("adafocus_v1", "adafocus_v2", "uni_adafocus"):
        raise UserError(
            f"method.name={method.name!r} is unknown; choose adafocus_v1, adafocus_v2, uni_adafocus or recognizer"
        )
    tiny["strides"] = backbone.glance_strides or None
    glance = _backbone(backbone.glance, backbone.glance_channels, **tiny)
    if weights:
        imagenet_weights(glance, backbone.glance, backbone.glance_weights or backbone.weights)
    if backbone.shift != "none":
        insert(glance, config.segments.glance, _temporal(backbone))
        insert(focus, focus_frames(config), _temporal(backbone))
    if method.name == "adafocus_v1":
        return _adafocus_v1(config, glance, focus, num_classes)
    if method.name == "uni_adafocus":
        return _uni_adafocus(config, glance, focus, num_classes)
    if backbone.shift != "none":
        return AdaFocusV2TSM(
            glance,
            focus,
            num_classes=num_classes,
            glance_segments=config.segments.glance,
            focus_segments=focus_frames(config),
            patch_size=config.patch.size,
            frame_size=config.dataset.frame_size,
            policy_hidden=min(backbone.policy_hidden, 1024),
            dropout=config.schedule.head_dropout,
        )
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


def _adafocus_v1(config: Config, glance: nn.Module, focus: nn.Module, num_classes: int) -> nn.Module:
    backbone, policy = config.backbone, config.policy
    shared = {
        "num_classes": num_classes,
        "patch_size": config.patch.size,
        "frame_size": config.dataset.frame_size,
        "policy_hidden": min(backbone.policy_hidden, 1024),
        "dropout": config.schedule.dropout,
    }
    if backbone.shift != "none":
        return AdaFocusV1TSM(
            glance,
            focus,
            glance_segments=config.segments.glance,
            focus_segments=focus_frames(config),
            deviation=policy.deviation,
            policy_norm=policy.norm,
            **shared,
        )
    return AdaFocusV1(
        glance,
        focus,
        segments=config.segments.glance,
        glance_size=backbone.glance_size,
        grid=policy.grid,
        policy_convolution=policy.convolution,
        classifier_hidden=min(backbone.classifier_width, 1024),
        head_dropout=config.schedule.head_dropout,
        **shared,
    )


def _uni_adafocus(config: Config, glance: nn.Module, focus: nn.Module, num_classes: int) -> nn.Module:
    backbone, schedule = config.backbone, config.schedule
    shared = {
        "num_classes": num_classes,
        "glance_segments": config.segments.glance,
        "focus_segments": focus_frames(config),
        "candidates": candidates(config),
        "patch_size": config.patch.size,
        "smallest": config.patch.smallest,
        "frame_size": config.dataset.frame_size,
        "glance_size": backbone.glance_size,
        "glance_resize": backbone.glance_resize,
        "spatial_hidden": backbone.spatial_hidden,
        "temporal_hidden": backbone.temporal_hidden,
        "temperature": config.policy.temperature,
    }
    if backbone.shift != "none":
        background = config.method.remove_background
        return UniAdaFocusTSM(glance, focus, dropout=schedule.head_dropout, remove_background=background, **shared)
    return UniAdaFocus(
        glance,
        focus,
        classifier_width=backbone.classifier_width,
        dropout=schedule.dropout,
        head_dropout=schedule.head_dropout,
        **shared,
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


def seeded_model(config: Config, num_classes: int, *, weights: bool = True) -> nn.Module:
    """`model` with initial weights that are a function of the seed; the caller's random state is left alone.

    Weights that `init.from` replaces are not fetched.
    """
    weights = weights and not config.init.get("from")
    with torch.random.fork_rng(), as_user_error():
        torch.manual_seed(config.seed)
        return model(config, num_classes, weights=weights)


def stage(config: Config, network: nn.Module) -> Stage:
    """What learns, for a network of `model`."""
    normalize = Normalize(config.dataset.mean, config.dataset.std)
    if config.method.name == "recognizer":
        schedule = config.schedule
        return WholeFrames(
            network,
            normalize,
            groups=schedule.param_groups,
            head_rate=schedule.head_lr_mult,
            flow=config.dataset.modality == "flow",
            norms="partial" if schedule.partial_norm else "frozen" if schedule.freeze_norm else "all",
        )
    if config.method.name == "adafocus_v1":
        return _reinforced(config, network, normalize)
    shared = {
        "seed": config.seed,
        "rates": config.schedule.lr_mults,
        "where": config.method.where,
        "controls": config.evaluate.controls,
        "frozen_norm": batch_norms(network) if config.schedule.freeze_norm else [],
    }
    if config.method.name == "uni_adafocus":
        return UniAdaFocusStage(
            network,
            normalize,
            when=config.method.when,
            size_weight=config.schedule.size_weight,
            kl_weight=config.schedule.kl_weight,
            draws=config.policy.draws,
            **shared,
        )
    return JointStage(network, normalize, **shared)


def _reinforced(config: Config, network: nn.Module, normalize: Normalize) -> Stage:
    """A stage of AdaFocus V1. Evaluation of a run of all stages is that of the last."""
    name = "3" if config.stage.name == "all" else config.stage.name
    # Dropout differs between stages, the network is one.
    network.set_dropout(config.schedule.dropout, config.schedule.head_dropout)
    shared = {"seed": config.seed, "rates": config.schedule.lr_mults, "controls": config.evaluate.controls}
    if name != "2":
        return SupervisedStage(network, normalize, name=name, **shared)
    policy = config.policy
    return PolicyStage(
        network,
        normalize,
        reward=policy.reward,
        gamma=policy.gamma,
        clip=policy.clip,
        value_weight=policy.value_weight,
        entropy_weight=policy.entropy_weight,
        epochs=policy.epochs,
        minibatches=policy.minibatches,
        **shared,
    )


def settings(config: Config, train_size: int) -> Settings:
    """The loop's numbers for a training set of `train_size` clips."""
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
    rate = scaled_rate(schedule.lr, schedule.batch_size, schedule.base_batch_size, schedule.lr_scaling)
    share = schedule.batch_size // config.devices // schedule.accumulation_steps
    return (
        f"batch {schedule.batch_size} = {config.devices} device(s) x {share} clips x {schedule.accumulation_steps} accumulation; "
        f"rate {schedule.lr:g} at {schedule.base_batch_size} -> {rate:g} at {schedule.batch_size} ({schedule.lr_scaling})"
    )
