"""Layer-wise learning rates, and the moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adafocus.backbones import BACKBONES
from adafocus.core.errors import UserError
from adafocus.training.optimizer import WeightAverage, layer_rates


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("tiny_focus", 3), ("resnet18", 9), ("resnet50", 17), ("mobilenet_v2", 19)],
)
def test_rates_fall_from_block_to_block(name: str, blocks: int) -> None:
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    rates = layer_rates([backbone], 0.5)
    in_order = [rates[id(parameter)] for parameter in backbone.parameters()]
    assert len(rates) == len(in_order) and in_order == sorted(in_order)
    assert sorted(set(in_order)) == [0.5**depth for depth in range(blocks, 0, -1)]


def test_a_wrapper_is_not_a_block() -> None:
    wrapped, plain = nn.Module(), BACKBONES["tiny_focus"]()
    wrapped.network = plain
    assert layer_rates([wrapped], 0.5) == layer_rates([plain], 0.5)


def test_a_network_without_backbones_is_refused() -> None:
    with pytest.raises(UserError, match=r"schedule\.layer_decay"):
        layer_rates([], 0.5)


def test_average_of_weights_and_of_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average, expected = WeightAverage(model, 0.5), None
    for step in range(1, 6):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].running_mean.fill_(-step)
            model[1].num_batches_tracked.fill_(step)
        average.update(model, step)
        decay = min(0.5, step / (9 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    linear, norm = average.model
    assert linear.weight.flatten().tolist() == pytest.approx([expected] * 4)
    assert norm.running_mean.tolist() == pytest.approx([-expected] * 2) and norm.num_batches_tracked == 5
    assert torch.equal(linear.bias, model[0].bias)  # what does not change stays the same to the bit
    again = WeightAverage(model, 0.5)
    again.restore(average.model.state_dict(), 5)
    for one in (average, again):
        one.update(model, 6)
    assert all(
        torch.equal(a, b) for a, b in zip(*(x.model.state_dict().values() for x in (average, again)), strict=True)
    )
