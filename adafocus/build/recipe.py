"""Configuration -> the loop's numbers."""

from __future__ import annotations

from adafocus.engine.loop import Settings
from adafocus.engine.schedule import learning_rates, scaled_rate
from adafocus.errors import UserError
from adafocus.schema import Config


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
