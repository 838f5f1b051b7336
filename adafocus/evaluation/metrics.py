"""Metrics of a split (top-1, top-5, mean class accuracy, mAP), and the averaging of a video's views."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adafocus.core.choices import AVERAGES


def average_views(logits: Tensor, average: str = "logits") -> Tensor:
    """Averages the logits of the V views (clips times crops) of each video, (B, V, K) to (B, K).

    Args:
        logits: (B, V, K) logits of all views.
        average: "logits" (TSM, TAM), or "probabilities": the logarithm of the mean softmax (MMAction2's
            `average_clips`).
    """
    if average == "logits":
        return logits.mean(1)
    if average == "probabilities":
        return logits.softmax(-1).mean(1).log()
    raise ValueError(f"unknown average of views {average!r}; choose one of {', '.join(AVERAGES)}")


def scores(logits: Tensor, labels: Tensor, valid: Tensor) -> dict[str, float]:
    """Computes top-1, top-5, mean class accuracy and mean average precision (mAP), in percent.

    Args:
        logits: (N, K) class scores.
        labels: (N, L) class ids padded with -1; top-1 and top-5 use column 0.
        valid: (N,) bool; False if a video could not be read: it counts as wrong, and ranks last for mAP.

    mAP ranks videos by softmax probability. A class without a positive video is left out of the mean; the AdaFocus
    repositories (`cal_map` in ops/utils.py) renumber the labels that occur, which then belong to wrong columns.
    """
    classes = logits.shape[1]
    target = labels[:, 0]
    ranked = logits.topk(min(5, classes), dim=1).indices == target[:, None]
    hit = ranked[:, 0] & valid
    result = {"top1": 100.0 * hit.double().mean().item()}
    if classes > 5:
        result["top5"] = 100.0 * (ranked.any(1) & valid).double().mean().item()
    found = torch.zeros(classes, dtype=torch.float64).index_add(0, target, hit.double())
    count = torch.bincount(target, minlength=classes)
    result["class_accuracy"] = 100.0 * (found / count)[count > 0].mean().item()
    result["map"] = mean_average_precision(logits, labels, valid)
    return result


def loss(logits: Tensor, labels: Tensor, valid: Tensor) -> float:
    """Returns the mean cross entropy over the readable videos, 0 if there is none; arguments as in `scores`."""
    if not valid.any():
        return 0.0
    return functional.cross_entropy(logits[valid].double(), labels[valid, 0]).item()


def mean_average_precision(logits: Tensor, labels: Tensor, valid: Tensor) -> float:
    """Returns the mean average precision in percent over the classes that occur; arguments as in `scores`."""
    return float(np.nanmean(average_precision(logits, labels, valid)))


def average_precision(logits: Tensor, labels: Tensor, valid: Tensor) -> np.ndarray:
    """Returns the average precision (K,) of each class in percent; NaN for a class without a positive video."""
    from torchmetrics.functional.classification import binary_average_precision, multilabel_average_precision

    probability = logits.double().softmax(1)
    probability[~valid] = 0.0
    positive = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.int64)
    positive.scatter_(1, labels.where(labels >= 0, logits.shape[1]), 1)
    positive = positive[:, :-1]
    values = np.full(logits.shape[1], np.nan)
    occurs = positive.any(0)
    if occurs.sum() == 1:  # torchmetrics' multilabel function needs at least two classes
        found = binary_average_precision(probability[:, occurs].flatten(), positive[:, occurs].flatten())
    else:
        found = multilabel_average_precision(
            probability[:, occurs], positive[:, occurs], int(occurs.sum()), average="none", thresholds=None
        )
    values[occurs.numpy()] = 100.0 * found.numpy()
    return values
