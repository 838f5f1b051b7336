"""The loss of a prediction against torch's own functions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adafocus.core.batch import Batch, Mixed
from adafocus.core.objective import Objective

LABELS = torch.tensor([[2, -1, -1], [0, 1, -1]])


def batch(**changes) -> Batch:
    made = Batch(torch.zeros(2, 1, 1, 1, 3), LABELS, torch.arange(2), 0, torch.ones(2, dtype=torch.bool))
    return replace(made, **changes)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


def test_plain_cross_entropy_to_the_bit(logits: Tensor) -> None:
    rows = LABELS[:, 0].repeat_interleave(5)
    assert torch.equal(Objective()(logits, batch()), functional.cross_entropy(logits.flatten(0, 1), rows))


def test_smoothing_and_class_weights(logits: Tensor) -> None:
    rows, weights = LABELS[:, 0].repeat_interleave(5), torch.tensor([0.5, 2.0, 1.5])
    smooth = functional.cross_entropy(logits.flatten(0, 1), rows, label_smoothing=0.2)
    assert torch.allclose(Objective(label_smoothing=0.2)(logits, batch()), smooth)
    plain = functional.cross_entropy(logits.flatten(0, 1), rows, reduction="none")
    assert torch.allclose(Objective(class_weights=weights)(logits, batch()), (weights[rows] * plain).mean())


def test_mixed_clips_have_both_labels(logits: Tensor) -> None:
    share = torch.tensor([0.75, 0.6])
    target = torch.tensor([[0.25, 0.0, 0.75], [0.6, 0.0, 0.4]])[:, None].expand_as(logits).flatten(0, 1)
    expected = functional.cross_entropy(logits.flatten(0, 1), target)
    found = Objective()(logits, batch(mixed=Mixed(torch.tensor([1, 0]), share)))
    assert torch.allclose(found, expected)


def test_the_teachers_term_is_that_of_hinton(logits: Tensor) -> None:
    teacher, objective = (
        torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 5.0]]),
        Objective(teacher_weight=0.5, temperature=4.0),
    )
    target = (teacher / 4).softmax(1)
    apart = [
        functional.kl_div((logits[:, step] / 4).log_softmax(1), target, reduction="batchmean") for step in range(5)
    ]
    expected = Objective()(logits, batch()) + 0.5 * 16 * torch.stack(apart).mean()
    assert torch.allclose(objective(logits, batch(teacher=teacher)), expected)
    same = objective(teacher[:, None], batch(teacher=teacher)) - Objective()(teacher[:, None], batch())
    assert same.abs() < 1e-6


def test_a_video_that_the_teacher_could_not_read_has_its_label_only(logits: Tensor) -> None:
    teacher = torch.tensor([[torch.nan] * 3, [0.0, 0.0, 5.0]])
    logits.requires_grad_()
    objective = Objective(teacher_weight=1.0, temperature=2.0)
    loss = objective(logits, batch(teacher=teacher)) - Objective()(logits, batch())
    loss.backward()
    assert logits.grad.isfinite().all() and (logits.grad[0].abs() < 1e-6).all() and logits.grad[1].any()
