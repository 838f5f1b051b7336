from __future__ import annotations

import numpy as np
import pytest

from adafocus.evaluation.bootstrap import bootstrap


def test_the_interval_covers_the_mean_and_shrinks_with_the_number_of_videos() -> None:
    draws = np.random.default_rng(0)
    few, many = (bootstrap(draws.random((3, size)) < 0.7) for size in (40, 4000))
    for found in (few, many):
        assert found.low < found.mean < found.high and abs(found.mean - 70) < 10
    assert few.high - few.low > 5 * (many.high - many.low)
    assert bootstrap(np.ones((2, 10), bool)) == pytest.approx((100.0, 100.0, 100.0))


def test_seeds_that_differ_widen_the_interval() -> None:
    draws = np.random.default_rng(0)
    alike = np.repeat(draws.random((1, 500)) < 0.5, 4, 0)
    unlike = draws.random((4, 500)) < np.array([[0.2], [0.4], [0.6], [0.8]])
    width = [found.high - found.low for found in map(bootstrap, (alike, unlike))]
    assert width[1] > 2 * width[0]


def test_a_difference_on_the_same_videos_is_paired() -> None:
    draws = np.random.default_rng(0)
    base = draws.random((1, 300)) < 0.5
    better = base | (draws.random((1, 300)) < 0.1)  # never wrong where the baseline is right
    gain = bootstrap(better, base)
    assert gain.low > 0 and gain.mean == pytest.approx(100 * (better.mean() - base.mean()))
    alone = bootstrap(better)
    assert gain.high - gain.low < alone.high - alone.low


def test_tables_of_other_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="bootstrap needs"):
        bootstrap(np.ones((1, 3), bool), np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="bootstrap needs"):
        bootstrap(np.ones((0, 3), bool))
