from __future__ import annotations

import numpy as np
import torch
from helpers.golden_cases import Case

from adafocus.evaluation.metrics import average_precision, mean_average_precision, scores


def everything(rows: int) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_average_precision_by_hand() -> None:
    # Class 0: ranked positive, negative, positive -> (1/1 + 2/3) / 2; class 1 the mirror image: (1/2) / 1.
    logits = torch.tensor([[4.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([[0], [1], [0]])
    np.testing.assert_allclose(average_precision(logits, labels, everything(3)), [100 * 5 / 6, 50.0])


def test_unreadable_videos_count_as_wrong() -> None:
    logits, labels = 5 * torch.eye(4), torch.arange(4)[:, None]
    valid = torch.tensor([True, True, False, True])
    result = scores(logits, labels, valid)
    assert result["top1"] == 75.0
    assert result["map"] < 100.0
    assert scores(logits, labels, everything(4)) == {"top1": 100.0, "class_accuracy": 100.0, "map": 100.0}


def test_class_accuracy_weighs_classes_alike() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 4)
    result = scores(logits, torch.tensor([[0], [0], [0], [1]]), everything(4))
    assert (result["top1"], result["class_accuracy"]) == (75.0, 50.0)


def test_golden_map() -> None:
    golden = Case("map_actnet")
    logits, labels = torch.from_numpy(golden["scores"]), torch.from_numpy(golden["targets"])
    np.testing.assert_allclose(average_precision(logits, labels, everything(160)), golden["AP"], rtol=1e-5)
    np.testing.assert_allclose(mean_average_precision(logits, labels, everything(160)), golden["mAP"][0], rtol=1e-5)
    kept = torch.from_numpy(golden["absent_rows"])
    skipped = mean_average_precision(logits[kept], labels[kept], everything(int(kept.sum())))
    np.testing.assert_allclose(skipped, golden["absent_mAP_skip"][0], rtol=1e-5)
