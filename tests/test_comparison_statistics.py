import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grokinterp.comparison.lineup import POSITIONS, Clock, common_steps
from grokinterp.sweeps.statistics import contrast, line, median_interval, more_than_half


@pytest.mark.parametrize("n", range(2, 12))
def test_the_interval_holds_the_median_as_often_as_it_says(n):
    # Each value is below the median or above it with equal chance: all 2^n ways, counted.
    found = median_interval(list(range(n)))
    low, high = found.low, found.high
    holds = sum(low + 1 <= sum(below) <= high for below in itertools.product((0, 1), repeat=n))
    assert found.coverage == pytest.approx(holds / 2**n, abs=1e-12)
    assert (found.coverage >= 0.95) == (n >= 6)
    if found.low > 0:  # one narrower would not do
        narrower = 1 - 2 * stats.binom.cdf(found.low + 1, n, 0.5)
        assert narrower < 0.95 or found.low + 1 >= n / 2


def test_few_seeds_are_said_to_be_few():
    assert (median_interval([]).n, median_interval([2.0]).n) == (0, 1)
    assert math.isnan(median_interval([]).median)
    one = median_interval([2.0, math.nan])
    assert (one.n, one.median, one.coverage) == (1, 2.0, 0.0)
    assert math.isnan(one.low)
    three = median_interval([5.0, 1.0, math.nan, 2.0])
    assert (three.n, three.median, three.low, three.high, three.coverage) == (3, 2, 1, 5, 0.75)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5, unique=True),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5, unique=True),
)
def test_p_values_are_those_of_the_exact_rank_sum_test(a, b):
    if set(a) & set(b):
        return
    found = contrast(a, b)
    for alternative, p in (("greater", found.p_above), ("less", found.p_below)):
        expected = stats.mannwhitneyu(a, b, alternative=alternative, method="exact").pvalue
        assert p == pytest.approx(expected, abs=1e-12)
    pairs = [np.sign(x - y) for x in a for y in b]
    assert found.delta == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found.shift == pytest.approx(np.median([x - y for x in a for y in b]), abs=1e-9)


def test_three_against_three_decide_only_without_overlap():
    apart = contrast([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert (apart.p_above, apart.p_below) == (pytest.approx(1 / 20), 1.0)
    assert contrast([4.0, 5.0, 2.5], [1.0, 2.0, 3.0]).p_above == pytest.approx(2 / 20)


def test_ties_are_counted_over_all_deals():
    # Of the 6 deals of 1, 1, 1, 2 to two and two, the 3 that give the first regime the 2.
    found = contrast([1.0, 2.0], [1.0, 1.0])
    assert (found.p_above, found.p_below) == (0.5, 1.0)
    assert (found.delta, found.shift, found.ratio) == (0.5, 0.5, 1.5)
    assert contrast([1.0, 1.0], [1.0, 1.0]).p_above == 1.0


def test_many_seeds():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 11).tolist(), rng.normal(0, 1, 11).tolist()
    exact = stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue
    assert contrast(a, b).p_above == exact
    assert contrast([float(i) for i in range(11, 22)], [float(i) for i in range(11)]).p_above == (
        pytest.approx(1 / math.comb(22, 11))
    )
    tied = [round(x) * 1.0 for x in a]
    usual = stats.mannwhitneyu(tied, b, alternative="greater", method="asymptotic").pvalue
    assert contrast(tied, b).p_above == usual


def test_infinity_is_above_everything_and_as_high_as_itself():
    found = contrast([math.inf, math.inf], [math.inf, 1.0])
    assert found.delta == 0.5
    assert found.p_above == 0.5
    assert math.isnan(found.ratio)


def test_an_empty_regime_has_no_contrast():
    found = contrast([1.0], [math.nan])
    assert (found.n, found.n_other) == (1, 0)
    assert all(math.isnan(x) for x in (found.shift, found.ratio, found.delta, found.p_above))


def test_a_line_with_the_interval_of_fisher():
    x, y = [0.0, 1.0, 2.0, 3.0, 4.0], [0.1, 0.9, 2.2, 2.8, 4.1]
    found = line(x, y)
    r = np.corrcoef(x, y)[0, 1]
    assert found.r == pytest.approx(r, rel=1e-12)
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-12)
    ends = [math.tanh(math.atanh(r) + z / math.sqrt(5 - 3)) for z in (-1.959964, 1.959964)]
    assert [found.low, found.high] == pytest.approx(ends, rel=1e-6)
    assert line([*x, math.nan], [*y, 1.0]) == found
    assert math.isnan(line([1.0, 1.0, 1.0, 1.0], y[:4]).r)
    three = line(x[:3], y[:3])
    assert three.r == pytest.approx(np.corrcoef(x[:3], y[:3])[0, 1])
    assert math.isnan(three.low)
    assert math.isnan(line(x[:2], y[:2]).r)


@pytest.mark.parametrize(
    ("k", "n", "certain"),
    [(0, 0, False), (2, 2, False), (3, 3, True), (4, 5, False), (8, 10, False), (9, 10, True)],
)
def test_more_than_half(k, n, certain):
    assert more_than_half(k, n) is certain


class TestClock:
    clock = Clock(t_train=100, t_test=1000, last=100_000)

    def test_positions_of_what_happens(self):
        marks = {0: 0, 50: 0.5, 100: 1, 550: 1.5, 1000: 2, 10_000: 2.5, 100_000: 3}
        assert [self.clock.position(step) for step in marks] == pytest.approx([*marks.values()])

    def test_train_and_test_at_once(self):
        clock = Clock(t_train=100, t_test=100, last=10_000)
        assert [clock.position(s) for s in (50, 100, 1000)] == pytest.approx([0.5, 2.0, 2.5])

    def test_learned_at_the_start_or_at_the_end(self):
        assert Clock(0, 0, 100).position(0) == 2.0
        assert Clock(0, 0, 100).position(10) == pytest.approx(2.5)
        assert Clock(50, 100, 100).position(100) == 2.0
        assert Clock(0, 0, 1).position(1) == 2.0

    def test_what_is_too_far_from_a_position_does_not_stand_for_it(self):
        found = self.clock.nearest((0, 100, 1000, 100_000))
        assert found == {0.0: 0, 1.0: 100, 2.0: 1000, 2.1: 1000, 2.9: 100_000, 3.0: 100_000}
        dense = self.clock.nearest(range(0, 100_001, 10))
        assert set(dense) == set(POSITIONS)
        assert dense[1.5] == 550


def test_steps_that_all_runs_saved():
    assert common_steps([(0, 1, 5, 9), (0, 5, 7, 9)]) == (0, 5, 9)
    assert common_steps([(0, 1), (2, 3)]) == ()
    many = common_steps([range(0, 10_000, 10), range(0, 10_000, 5)])
    assert len(many) == 17
    assert (many[0], many[-1]) == (0, 9990)
    assert all(step % 10 == 0 for step in many)
