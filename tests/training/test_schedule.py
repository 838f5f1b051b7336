from __future__ import annotations

import math

import numpy as np
import pytest

from adafocus.training.lr_schedule import learning_rates, scaled_rate


def test_the_seeds_cosine_is_constant_inside_an_epoch_and_ends_at_zero() -> None:
    rates = learning_rates(rate=0.002, epochs=51, steps_per_epoch=3, per_epoch=True, horizon=50)
    expected = [0.001 * (1 + math.cos(math.pi * epoch / 50)) for epoch in range(51)]
    np.testing.assert_allclose(rates, np.repeat(expected, 3), atol=1e-12)
    assert rates[-1] == 0


def test_steps_fall_at_their_milestones() -> None:
    rates = learning_rates(rate=1.0, epochs=6, steps_per_epoch=2, shape="step", milestones=[2, 4], per_epoch=True)
    np.testing.assert_allclose(rates, [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_warm_up_is_linear_and_reaches_the_shape() -> None:
    rates = learning_rates(rate=1.0, epochs=4, steps_per_epoch=5, shape="constant", warmup_epochs=2)
    np.testing.assert_allclose(rates, [*np.arange(1, 11) / 10, *np.ones(10)])


def test_rates_follow_the_batch() -> None:
    assert scaled_rate(0.002, 8, 32) == 0.0005
    assert scaled_rate(0.002, 8, 32, "none") == 0.002
    with pytest.raises(ValueError, match="linear, none"):
        scaled_rate(0.002, 8, 32, "sqrt")


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        learning_rates(rate=1.0, epochs=1, steps_per_epoch=1, shape="poly")
