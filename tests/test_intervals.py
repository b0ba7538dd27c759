"""Intervals of phase boundaries: they hold what noise and the choice of logged steps move.

`python -m tests.intervals` measures the same at length.
"""

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from tests.curves import BOUNDARIES, chain
from tests.intervals import DISTURBANCES, boundaries, family, shipped, tries

RUNS = dict(shipped())
STEPS = np.arange(0, 10_001, 20)
CLEANUP = (3000, 5500)  # joints of the test curves made here


@pytest.mark.parametrize("name", RUNS)
def test_intervals_of_shipped_runs_hold_the_clean_boundary(name):
    found = pd.DataFrame(tries(name, RUNS[name], 4))
    assert set(found["disturbance"]) == set(DISTURBANCES)
    assert not found["null"].any()
    assert found["inside"].all()
    # Not by being wide: what is added is a row of the disturbed log on either side.
    rows = {"1 % noise": 2, "half of the rows": 6, "every 5th row": 12}
    spacing = RUNS[name]["step"].diff().median()
    wider = (found["width"] - 1.3 * found["clean"]) / spacing
    assert (wider <= found["disturbance"].map(rows)).all()


def test_the_dates_of_the_shipped_run_are_those_of_0_2_0():
    found = gi.detect_phases(RUNS["mod113-grokked"])
    assert [(phase.end, phase.end_interval) for phase in found.phases] == [
        (1350, (1020, 1630)), (5160, (4650, 5710)), (8270, (7830, 8600))
    ]  # fmt: skip


def test_intervals_of_the_family_hold_the_clean_boundary():
    found = pd.concat(pd.DataFrame(tries(name, frame, 2)) for name, frame in family(20))
    dated = found[~found["null"]]
    assert dated["inside"].mean() >= 0.95
    assert found["null"].mean() <= 0.1
    assert set(dated["boundary"]) == set(BOUNDARIES)
    for boundary, of_one in dated.groupby("boundary"):
        assert of_one["inside"].mean() >= 0.93, boundary  # 95 % of many more: tests.intervals


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_no_single_cell_moves_a_boundary(name):
    rng = np.random.default_rng(0)
    clean = boundaries(RUNS[name])
    moved = 0
    for _ in range(100):
        frame = RUNS[name].copy()
        column = rng.choice(["train_loss", "test_loss"])
        frame.loc[rng.integers(len(frame)), column] = rng.random()
        found = boundaries(frame)
        moved += any((found[b] and found[b][0]) != (clean[b] and clean[b][0]) for b in BOUNDARIES)
    assert moved <= 1


def log_of(test, steps=STEPS):
    """A run with that log of the test loss: train learned at 200, test at the end of cleanup."""
    train = chain(steps, 1.5, (100, 500, 10_000), (1.2, -12, -13), (20, 30))
    return pd.DataFrame(
        {"step": steps, "train_loss": np.exp(train), "test_loss": np.exp(test),
         "train_acc": (steps >= 200).astype(float), "test_acc": (steps >= 4500).astype(float)}
    )  # fmt: skip


def fallen_before(by):
    """A test loss that falls twice: at once, by so many nats, and late."""
    return chain(STEPS, 1.5 + by, (600, *CLEANUP, 10_000), (1.5, 1.1, -6, -6.2), (60, 200, 200))


@pytest.mark.parametrize("by", [0, 1, 2, 3, 5, 8])
def test_a_first_fall_is_not_taken_for_the_late_one(by):
    frame = log_of(fallen_before(by))
    found = boundaries(frame)
    for joint, name in zip(CLEANUP, BOUNDARIES[1:], strict=True):
        _, (first, last) = found[name]
        assert first <= joint <= last, name
        assert last - first <= 1000
    held = pd.DataFrame(tries("", frame, 2))
    assert held["inside"].all()


def test_a_straight_fall_has_no_bend_and_says_so():
    found = gi.detect_phases(log_of(np.interp(STEPS, [0, 9000, 10_000], [3, -6, -6])))
    assert found.label == "grokked"
    assert [phase.end for phase in found.phases] == [None] * 3
    for what in ("start of cleanup", "end of cleanup", "end of memorisation"):
        assert any(reason.startswith(f"{what} is null") for reason in found.reasons), what


def test_the_scatter_of_a_steep_curve_is_seen():
    """Rows may fall by more than they scatter: a fit that falls then passes through them all."""
    steps = STEPS[::5]
    curve = chain(steps, 3.0, (*CLEANUP, 10_000), (2.0, -9, -9.3), (50, 50))
    widths = {}
    for sigma in (0.0, 0.3):
        inside = []
        for seed in range(40):
            noise = np.random.default_rng(seed).normal(0, sigma, len(steps))
            dated = boundaries(log_of(curve + noise, steps))
            for joint, name in zip(CLEANUP, BOUNDARIES[1:], strict=True):
                first, last = dated[name][1]
                inside.append(first <= joint <= last)
                widths.setdefault((sigma, name), []).append(last - first)
        assert np.mean(inside) >= 0.95
    for name in BOUNDARIES[1:]:
        assert np.mean(widths[0.3, name]) > 1.25 * np.mean(widths[0.0, name])
