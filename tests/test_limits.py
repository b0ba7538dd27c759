import math

import pytest

from grokinterp.geometry.paths import limit_of


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.7])
def test_a_power_law_is_continued_exactly(order):
    lengths = [7 - 0.01 * h**order for h in (1, 2, 4)]
    found = limit_of(*lengths, geodesic=3.5)
    assert found.length == pytest.approx(7, rel=1e-10)
    assert found.straightness == pytest.approx(0.5, rel=1e-10)
    assert found.order == pytest.approx(order, rel=1e-8)
    assert found.reason == ""


@pytest.mark.parametrize("order", [0.49, 0.1])
def test_a_slow_one_is_not(order):
    found = limit_of(*(7 - 0.01 * h**order for h in (1, 2, 4)), geodesic=1.0)
    assert (found.length, found.straightness) == (None, None)
    assert found.order == pytest.approx(order, rel=1e-8)
    assert found.reason.endswith("the limit is far off")


@pytest.mark.parametrize("order", [-0.5, -1.0])
def test_what_grows_without_end_has_none(order):
    found = limit_of(*(2 * h**order for h in (1, 2, 4)), geodesic=1.0)
    assert (found.length, found.straightness) == (None, None)
    assert found.order == pytest.approx(order, rel=1e-8)
    assert found.reason.endswith("no sign of a limit")


def test_the_least_order_is_where_the_rest_is_what_both_halvings_added():
    one, four = (7 - 0.01 * h**0.5 for h in (1, 4))
    assert 7 - one == pytest.approx(one - four)


def test_lengths_that_do_not_grow():
    assert limit_of(2.0, 2.0, 1.5, geodesic=1.0).length == 2.0
    straight = limit_of(2.0, 2.0, 2.0, geodesic=2.0)
    assert (straight.length, straight.straightness, straight.order) == (2.0, 1.0, None)
    assert "added nothing" in straight.reason
    nearly = limit_of(2.0, 2.0 - 1e-13, 1.5, geodesic=1.0)
    assert (nearly.length, nearly.order) == (2.0, None)
    still = limit_of(0.0, 0.0, 0.0, geodesic=0.0)
    assert (still.length, still.straightness) == (0.0, None)
    rough = limit_of(2.0, 1.0, 1.0, geodesic=1.0)
    assert (rough.length, rough.order) == (None, None)
    assert "no sign" in rough.reason
    assert not any(value is math.nan for value in vars(rough).values())
