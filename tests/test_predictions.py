"""Fisher-Rao geometry of predictions against closed forms, arcs integrated, and high precision."""

import math
import sys

import mpmath
import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.geometry import predictions as module
from grokinterp.geometry.predictions import (
    angle_of_chord,
    fisher_rao_distance,
    geodesic_point,
    pairwise_distances,
    root_probabilities,
    roots_along,
)


def draw(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def precise_distance(p, q):
    """The definition with arccos, in 60 digits."""
    with mpmath.workdps(60):
        total = mpmath.mpf(0)
        for one, other in zip(p.tolist(), q.tolist(), strict=True):
            a, b = (
                [mpmath.exp(mpmath.mpf(v)) for v in one],
                [mpmath.exp(mpmath.mpf(v)) for v in other],
            )
            overlap = sum(mpmath.sqrt(x * y) for x, y in zip(a, b, strict=True))
            overlap /= mpmath.sqrt(sum(a) * sum(b))
            total += (2 * mpmath.acos(min(overlap, mpmath.mpf(1)))) ** 2
        return float(mpmath.sqrt(total / len(p)))


@pytest.mark.parametrize("shift", [3.0, 1e-2, 1e-5, 1e-8])
def test_distances_near_and_far_have_their_digits(shift):
    p = draw(4, 5, scale=5)
    q = p + shift * draw(4, 5, seed=1)
    assert fisher_rao_distance(p, q) == pytest.approx(precise_distance(p, q), rel=1e-10, abs=2e-16)


def test_two_classes_are_an_arc():
    """Angle of (cos a, sin a) and (cos b, sin b) is b - a; distance twice that; mean of squares."""
    a, b = torch.tensor([[0.2, 0.9], [0.5, 1.3]], dtype=torch.float64)
    p, q = (torch.stack([x.cos(), x.sin()], dim=1).log() * 2 for x in (a, b))
    expected = math.sqrt(((2 * 0.3) ** 2 + (2 * 0.4) ** 2) / 2)
    assert fisher_rao_distance(p, q) == pytest.approx(expected, rel=1e-14)


def test_the_ends_of_the_scale():
    p = torch.tensor([[800.0, 0.0], [0.0, 800.0]])
    assert fisher_rao_distance(p, p) == 0
    assert fisher_rao_distance(p, p.flip(0)) == pytest.approx(math.pi, rel=1e-14)
    assert fisher_rao_distance(p + 7, p) == 0  # a shift of all logits is none of predictions


def test_roots_are_unit_vectors_and_keep_small_numbers():
    logits = torch.tensor([[90.0, 0.0]])
    found = root_probabilities(logits)
    assert found.dtype == torch.float64
    assert found[0, 1] == pytest.approx(math.exp(-45), rel=1e-13)
    torch.testing.assert_close(
        root_probabilities(draw(9, 4)).square().sum(1), torch.ones(9).double()
    )


def test_the_geodesic_is_as_long_as_its_line_element():
    """sqrt(mean_x sum_c dp_c^2 / p_c), integrated over the points in between (midpoint rule)."""
    roots = root_probabilities(draw(6, 4, scale=2)), root_probabilities(draw(6, 4, seed=1, scale=2))

    def integral(n):
        total = 0.0
        for i in range(n):
            before, at, after = (
                geodesic_point(*roots, (i + part) / n).square() for part in (0, 0.5, 1)
            )
            total += float(((after - before).square() / at).sum(dim=1).mean().sqrt())
        return total

    extrapolated = (4 * integral(120) - integral(60)) / 3  # the rule is of second order
    distance = float(pairwise_distances(torch.stack(roots))[0, 1])
    assert extrapolated == pytest.approx(distance, rel=1e-7)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.8, 1.0])
def test_points_between_divide_the_distance(t):
    p, q = root_probabilities(draw(6, 4, scale=2)), root_probabilities(draw(6, 4, seed=1, scale=2))
    q[2] = p[2]  # an input that does not move
    between = geodesic_point(p, q, t)
    found = pairwise_distances(torch.stack([p, between, q]))
    assert float(found[0, 1]) == pytest.approx(t * float(found[0, 2]), abs=1e-14)
    assert float(found[1, 2]) == pytest.approx((1 - t) * float(found[0, 2]), abs=1e-14)
    torch.testing.assert_close(between.square().sum(1), torch.ones(6).double())
    torch.testing.assert_close(between[2], p[2], rtol=1e-15, atol=0)


def test_all_pairs_at_once_are_those_one_by_one(monkeypatch):
    logits = draw(7, 11, 3, scale=3)
    roots = torch.stack([root_probabilities(one) for one in logits])
    expected = torch.tensor(
        [[fisher_rao_distance(a, b) for b in logits] for a in logits], dtype=torch.float64
    )
    for numbers in (1, 200, 1 << 22):  # blocks of 1, 4 and 11 inputs
        monkeypatch.setattr(module, "ANGLES_AT_ONCE", numbers)
        found = pairwise_distances(roots)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
        assert torch.equal(found, found.T)
        assert not found.diagonal().any()
    triangles = found[:, :, None] + found[None] - found[:, None]
    assert float(triangles.min()) > -1e-14


def test_distances_do_not_depend_on_the_order_of_classes_and_inputs():
    p, q = draw(6, 4), draw(6, 4, seed=1)
    classes, inputs = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 3, 1, 0, 2, 4])
    assert fisher_rao_distance(p[inputs][:, classes], q[inputs][:, classes]) == pytest.approx(
        fisher_rao_distance(p, q), rel=1e-14
    )


def test_the_angle_of_a_chord():
    angles = torch.tensor([0.0, 1e-9, 0.3, math.pi / 2, math.pi], dtype=torch.float64)
    torch.testing.assert_close(
        angle_of_chord(2 * (angles / 2).sin()), angles, rtol=1e-14, atol=1e-30
    )
    assert angle_of_chord(torch.tensor(2.0000001).double()) == pytest.approx(math.pi)


def test_a_runs_roots_are_those_of_its_logits(tiny_run, monkeypatch):
    rows = torch.tensor([3, 40, 7, 8, 1])
    monkeypatch.setattr(sys.modules["grokinterp.runs._snapshot"], "BLOCK_ROWS", 2)
    found = roots_along(tiny_run, [0, 40], row_numbers=rows)
    assert found.shape == (2, 5, 7)
    for roots, step in zip(found, (0, 40), strict=True):
        weights = {name: w.double() for name, w in tiny_run.weights(step).items()}
        logits = tiny_run.snapshot(step).logits_with(weights)
        torch.testing.assert_close(roots, root_probabilities(logits[rows]), rtol=1e-12, atol=0)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match=r"\(2, 3\) and \(3, 3\) do not compare"):
        fisher_rao_distance(draw(2, 3), draw(3, 3))
    with pytest.raises(InputError, match="not finite"):
        root_probabilities(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(InputError, match="no input"):
        pairwise_distances(torch.ones(2, 0, 3))
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="is not a number from 0 to 1"):
            geodesic_point(draw(1, 2), draw(1, 2), t)
