"""Applies the precision, BatchNorm folding and compilation of the section `evaluate` to the evaluated network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from adafocus import build, inference
from adafocus.config.schema import Config
from adafocus.core.batch import Batch
from adafocus.core.stage import Stage
from adafocus.training.logger import log


def use_program(
    config: Config, stage: Stage, batches: Iterable[Batch], data: build.Data, device: torch.device
) -> dict[str, Any] | None:
    """Changes how the backbones run, in place, and adds that to the protocol line of `data`.

    The predictions for the first batch are compared with those of the unchanged network.

    Returns:
        the entry for summary.json; None if the network runs as it was trained.
    """
    precision = inference.pick_precision(config.evaluate.precision, device)
    options = config.evaluate
    program = inference.Program(precision, options.fold_norm, options.program, options.program_for)
    if program.plain:
        return None
    batch, main = next(iter(batches)).to(device), stage.variants[:1]
    valid = batch.valid.nonzero()[:, 0].tolist()
    exact = stage.evaluate(batch, main)[main[0]].logits[valid]
    frames, side = build.tested_plan(config).clip, config.dataset.frame_size
    inference.apply(stage.model, program, torch.randn(1, frames, build.channels(config), side, side, device=device))
    found = inference.agreement(exact, stage.evaluate(batch, main)[main[0]].logits[valid])
    data.protocol += f"; {program}"
    log.info("%s: same class for %.1f %% of %d clips", program, 100 * found.same_class, found.clips)
    return {**asdict(program), "agreement": found.as_dict()}
