"""Chooses exit thresholds with the guarantee of `adafocus.evaluation.contract` among the budgets of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adafocus.config.schema import EarlyExitConfig
from adafocus.core.errors import UserError
from adafocus.core.rng import generator
from adafocus.evaluation import contract, exits


def check_size(options: EarlyExitConfig, videos: int) -> None:
    """Checks, before anything is computed, that there are enough evaluation videos to prove the guarantee.

    Raises:
        UserError: there are too few; the message says how many are needed.
    """
    if options.lose is None:
        return
    needed, there = contract.needed_videos(options.lose, options.sure), int(options.calibration * videos)
    if there < needed:
        raise UserError(
            f"early_exit.lose={options.lose:g} with early_exit.sure={options.sure:g} needs at least {needed} "
            f"calibration videos, and early_exit.calibration={options.calibration:g} of {videos} are {there}; raise "
            f"early_exit.lose or early_exit.calibration, lower early_exit.sure, or evaluate on more videos"
        )


def choose_budget(
    options: EarlyExitConfig,
    limits: Sequence[Tensor],
    training: Tensor,
    costs: Tensor,
    values: Tensor,
    labels: Tensor,
    valid: Tensor,
    seed: int,
) -> dict[str, Any]:
    """Chooses the cheapest budget of the first criterion that has the guarantee; returns the entry of early_exit.json.

    The thresholds of the budgets and their order come from training videos. The test uses a random part of the
    evaluation videos (calibration); the others then measure how much the chosen budget loses and costs.

    Args:
        options: the section `early_exit`, with share of lost videos, probability and calibration share.
        limits: thresholds (E,) of each budget.
        training: (N', E) criterion of the training videos.
        costs: (E,) multiply-adds (MACs) of a video that stops at each exit.
        values: (N, E, K) predictions of the evaluation videos at all exits.
        labels: (N, L) class ids, padded with -1.
        valid: (N,) bool, False for videos that could not be read.
        seed: seed of the run, from which the calibration videos are sampled.
    """
    criterion = options.criteria[0]
    spent = [float(costs[exits.exit_indices(training, limit)].mean()) for limit in limits]
    order = sorted(range(len(limits)), key=lambda index: -spent[index])
    sure, classes = exits.certainty(values, criterion), values.argmax(-1)
    at = torch.stack([exits.exit_indices(sure, limit) for limit in limits], 1)
    early = classes.gather(1, at)
    lost = torch.stack([contract.lost_videos(one, classes[:, -1], labels) for one in early.unbind(1)], 1)
    readable = valid.nonzero()[:, 0]
    drawn = readable[torch.from_numpy(generator(seed, "calibration").permutation(len(readable)))]
    part = int(options.calibration * len(drawn))
    found = contract.choose(lost[drawn[:part]], order, options.lose or 0.0, options.sure)
    rest = drawn[part:]
    measured = None
    if found.chosen is not None:
        measured = {
            "videos": len(rest),
            "lost": float(lost[rest, found.chosen].double().mean()),
            "cost": float(costs[at[rest, found.chosen]].mean()),
        }
    thresholds = None if found.chosen is None else limits[found.chosen].tolist()
    return {"criterion": criterion, **found.as_dict(), "thresholds": thresholds, "others": measured}


def contract_line(found: dict[str, Any]) -> str:
    """Returns a line that says what a run's contract guarantees and which budget was chosen."""
    promise = f"at most {100 * found['lose']:g} % of the videos are lost by early exit, {100 * found['sure']:g} % sure"
    if found["budget"] is None:
        return f"{promise}: no budget keeps this on {found['videos']} calibration videos; use the full model"
    others = found["others"]
    return (
        f"{promise}: {found['criterion']} q={found['budget']:g}, which loses {100 * others['lost']:.2f} % of "
        f"{others['videos']} other videos and takes {others['cost'] / 1e6:.2f} M multiply-adds"
    )
