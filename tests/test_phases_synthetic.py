"""Phase detection scored on curves whose label and bends are known (tests/curves.py)."""

import functools
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from tests.curves import BOUNDARIES, KINDS, chain, generated

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

SIZES = (400, pytest.param(1000, marks=pytest.mark.slow))


@pytest.fixture(scope="module", params=SIZES)
def family(request):
    return [generated(index) for index in range(request.param)]


@pytest.fixture(scope="module")
def scored(family):
    return [(curve, gi.detect_phases(curve.frame)) for curve in family]


def test_the_bends_of_a_chain_are_its_joints():
    knots, levels = (20.0, 70.0, 100.0), (3.0, 2.0, -9.0)
    steps = np.linspace(0, 100, 100_001)
    values = chain(steps, 1.0, knots, levels, (1.0, 2.0))
    slopes = np.gradient(values, steps)
    curvatures = np.abs(np.gradient(slopes, steps))
    pieces = np.diff([1.0, *levels]) / np.diff([0.0, *knots])
    for joint, before, after in zip(knots[:-1], pieces[:-1], pieces[1:], strict=True):
        near = np.abs(steps - joint) < 10
        assert steps[near][np.argmax(curvatures[near])] == pytest.approx(joint, abs=0.05)
        assert np.interp(joint, steps, slopes) == pytest.approx((before + after) / 2, rel=1e-3)
    sharp = chain(steps, 1.0, knots, levels, (1e-6, 1e-6))
    assert sharp == pytest.approx(np.interp(steps, [0, *knots], [1, *levels]), abs=1e-4)


def test_the_family_is_what_it_claims(family):
    size = len(family)
    kinds = Counter(curve.clean.kind for curve in family)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 0.09 * size
    columns = Counter(tuple(curve.frame.columns[1:]) for curve in family)
    assert len(columns) == 3
    assert min(columns.values()) >= 0.2 * size
    steps = [curve.frame["step"] for curve in family]
    assert sum(not step.is_monotonic_increasing for step in steps) >= 0.1 * size
    assert sum(step.duplicated().any() for step in steps) >= 0.1 * size
    assert sum(curve.frame.isna().any(axis=None) for curve in family) >= 0.2 * size
    gaps = [np.unique(np.diff(np.unique(step))) for step in steps]
    assert sum(len(gap) > 2 for gap in gaps) >= 0.3 * size  # log-spaced or irregular
    for curve in family:  # the bends follow each other, and the log shows all three
        times = [0, *(curve.bends[name] for name in BOUNDARIES if curve.bends), curve.clean.last]
        assert times == sorted(times)


def test_labels_are_those_of_the_clean_curves(scored):
    wrong = [(c.name, f.label) for c, f in scored if f.label != c.label]
    assert len(wrong) <= 0.03 * len(scored), wrong
    assert sum(label == "undetermined" for _, label in wrong) > len(wrong) / 2, wrong
    for label in ("grokked", "steady", "memorized", "not_learned", "undetermined"):
        of_label = [f.label == label for c, f in scored if c.label == label]
        assert np.mean(of_label) >= 0.95, label


def test_bends_lie_in_their_intervals(scored):
    inside, nulls = {name: [] for name in BOUNDARIES}, 0
    for curve, found in scored:
        for phase in found.phases if curve.bends else ():
            if phase.end is None:
                nulls += 1
                continue
            first, last = phase.end_interval
            inside[phase.name].append(first <= curve.bends[phase.name] <= last)
    every = np.concatenate(list(inside.values()))
    assert every.mean() >= 0.9
    for name, hits in inside.items():
        assert np.mean(hits) >= 0.9, name
    assert nulls <= 0.1 * (len(every) + nulls)  # every one of them is in the log


def test_intervals_are_short_enough_to_say_something(scored):
    widths = [
        (phase.end_interval[1] - phase.end_interval[0]) / curve.clean.last
        for curve, found in scored
        for phase in found.phases
        if curve.bends and phase.end is not None
    ]
    assert np.median(widths) < 0.1


def test_noise_widens_the_interval_of_a_bend():
    steps = np.arange(0, 10_001, 25)
    log = chain(steps, 1.5, (1000, 6000, 8000, 10_000), (2.5, 2.0, -5.0, -5.1), (10, 10, 10))
    train = np.maximum(np.exp(1.5 - steps / 50), 1e-7)
    widths = []
    for sigma in (0, 0.1, 0.3):
        noise = np.exp(np.random.default_rng(0).normal(0, sigma, len(steps)))
        frame = pd.DataFrame({"step": steps, "train_loss": train, "test_loss": np.exp(log) * noise})
        first, last = gi.detect_phases(frame).phases[1].end_interval
        assert first <= 6000 <= last
        widths.append(last - first)
    assert widths == sorted(set(widths))


def test_collapses_are_dated(scored):
    dated = []
    for curve, found in scored:
        if curve.clean.kind != "collapsed" or found.label != "grokked":
            continue
        steps = np.unique(curve.frame["step"])
        row = int(np.searchsorted(steps, curve.clean.collapse))
        near = {f" at step {step}," for step in steps[row - 1 : row + 4]}
        told = [
            reason for reason in found.reasons if "collapses at" in reason or "rises to" in reason
        ]
        dated.append(any(step in reason for step in near for reason in told))
    assert np.mean(dated) >= 0.9


STEPS = np.array([0, 1, 2, 3, 5, 8, 10, 11, 12, 30, 31, 90])
ROWS = len(STEPS)


def stepwise(train_row, test_row, height=1.0, rows=ROWS):
    """Train learned from one row on, test from another: nothing to smooth, nothing in between."""
    at = np.arange(rows)
    return pd.DataFrame(
        {"step": STEPS[:rows], "train_acc": np.where(at >= train_row, 1.0, 0.0),
         "test_acc": np.where(at >= test_row, height, 0.0)}
    )  # fmt: skip


@functools.cache
def label_of_stepwise(train_row, test_row):
    return gi.detect_phases(stepwise(train_row, test_row)).label


@pytest.mark.parametrize("train_row", range(1, ROWS))
@pytest.mark.parametrize("test_row", range(1, ROWS))
def test_the_margin_is_how_far_the_test_crossing_is_from_another_label(train_row, test_row):
    found = gi.detect_phases(stepwise(train_row, test_row))
    moved = {
        abs(row - test_row)
        for row in range(1, ROWS + 1)
        if label_of_stepwise(train_row, row) != found.label
    }
    assert found.margin.intervals == min(moved)
    assert found.to_dict()["margin"] == {
        "intervals": min(moved), "meaning": found.margin.meaning, "unit": "logging intervals"
    }  # fmt: skip
    assert any(found.margin.meaning in reason for reason in found.reasons)


@pytest.mark.parametrize("train_row", [1, 4, 11])
@pytest.mark.parametrize(("test_row", "height"), [(99, 1.0), (3, 0.7), (9, 0.7), (11, 0.7)])
def test_the_margin_of_a_run_that_stays_is_how_much_of_its_log_it_needs(
    train_row, test_row, height
):
    whole = gi.detect_phases(stepwise(train_row, test_row, height))
    assert whole.label == ("memorized" if test_row == 99 else "undetermined")
    other = [
        gi.detect_phases(stepwise(train_row, test_row, height, rows)).label != whole.label
        for rows in range(1, ROWS + 1)
    ]
    longest = 1 + int(np.flatnonzero(other)[-1])  # of the logs that have another label
    assert whole.margin.intervals == ROWS - longest
