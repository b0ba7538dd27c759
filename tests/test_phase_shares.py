"""Shares of the phases in a change: by hand from the curves, the shipped runs, and runs without."""

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.progress import MEASURES, PhaseShares, phase_shares
from grokinterp.progress.run_measures import _phase_shares as columns

pytestmark = pytest.mark.shapes_unchecked

PARTS = ("memorization", "circuit_formation", "cleanup")


@pytest.fixture(scope="module")
def grokked(shipped):
    return phase_shares(shipped)


@pytest.fixture(scope="module")
def small():
    run = gi.load("mod31-small")
    return run, phase_shares(run)


def shares(found, measure):
    return [getattr(found[measure], part) for part in PARTS]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("test_acc", (0.13, 0.37, 0.50)),
        ("test_acc_unmirrored", (-0.01, 0.31, 0.69)),
        ("test_loss", (0, 0.84, 0.16)),
        ("log_test_loss", (0, 0.10, 0.90)),
        ("sum_sq_weights", (0, 0.53, 0.47)),
    ],
)
def test_the_shipped_run(grokked, measure, expected):
    assert shares(grokked, measure) == pytest.approx(expected, abs=0.02)


def test_ends_are_those_of_the_phases(small):
    run, found = small
    phases = gi.detect_phases(run.metrics).phases
    assert found.ends == (phases[0].start, *(phase.end for phase in phases))
    assert found.label == "grokked"


def test_they_add_up_to_one(grokked, small):
    for found in (grokked, small[1]):
        assert len(found.shares) == 5
        for each in found.shares:
            assert sum(getattr(each, part) for part in PARTS) == pytest.approx(1)


def test_with_measures_losses_of_key_frequencies_too(small):
    """Of curves that are made by hand, at the checkpoints of the run."""
    run, found = small
    first, one, two, three = found.ends
    steps = np.array(run.steps)
    table = pd.DataFrame({
        "step": steps,
        "restricted_loss": np.interp(steps, [0, 400, three], [3, 5, 0]),
        "trig_loss": np.interp(steps, [0, three], [7, 0]),
        "excluded_loss": np.interp(steps, [0, 300, 5000, three], [3, 0, 8, 6]),
        "sum_sq_weights": np.interp(steps, [0, three], [900, 400]),
    })  # fmt: skip
    more = phase_shares(run, measures=table)

    def at(column, step):
        return np.interp(step, steps, table[column])

    points = [at("trig_loss", step) for step in (first, one, two, three)]
    falls = -np.diff(points) / (points[0] - points[-1])
    assert shares(more, "trig_loss") == pytest.approx(falls.tolist())
    points = [at("restricted_loss", max(step, 400)) for step in (first, one, two, three)]
    falls = -np.diff(points) / (points[0] - points[-1])
    assert shares(more, "restricted_loss") == pytest.approx(falls.tolist())
    assert more["restricted_loss"].before == 5
    points = [at("excluded_loss", min(max(x, 300), 5000)) for x in (first, one, two, three)]
    assert shares(more, "excluded_loss") == pytest.approx((np.diff(points) / 8).tolist())
    assert (more["excluded_loss"].before, more["excluded_loss"].after) == (0, 8)
    points = [at("sum_sq_weights", step) for step in (one, two, three)]
    assert shares(more, "sum_sq_weights")[1:] == pytest.approx(
        (-np.diff(points) / (points[0] - points[-1])).tolist()
    )
    assert more["test_acc_unmirrored"] == found["test_acc_unmirrored"]  # of the log


def test_by_hand_from_the_log(small):
    """A measure that is logged is read from the log: here between two rows of it."""
    run, found = small
    metrics = run.metrics
    accuracy = [
        float(np.median(metrics.test_acc[abs(metrics.step - end) <= 20])) for end in found.ends
    ]
    expected = np.diff(accuracy) / (accuracy[-1] - accuracy[0])
    assert shares(found, "test_acc") == pytest.approx(expected.tolist(), abs=0.01)
    squares = {
        step: sum(float(x.double().square().sum()) for x in run.weights(step).values())
        for step in run.steps
    }
    norms = np.interp(found.ends[1:], list(squares), list(squares.values()))
    falls = np.diff(norms) / (norms[-1] - norms[0])
    assert shares(found, "sum_sq_weights") == pytest.approx([0, *falls.tolist()])


def nothing(found: PhaseShares, why):
    assert found.ends is None
    assert found.shares == ()
    assert len(found.table()) == 0
    assert why in found.notes[0]
    assert why in str(found)
    drawn = found.plot()
    assert not drawn.data  # not even bars without a length, which a legend would list
    assert "".join(drawn.layout.annotations[0].text.split("<br>"))[:20] in found.notes[0]
    with pytest.raises(gi.InputError, match="no shares of 'test_acc'; there are those of none"):
        found["test_acc"]


def test_runs_without_three_phases_have_none():
    nothing(phase_shares("mod113-steady"), "the run is steady, without three phases")
    nothing(phase_shares(gi.load("mod31-small").snapshot()), "without three phases")


def test_an_open_phase_is_named(small):
    run = gi.load("mod31-small")
    _, _, formed, cleaned = small[1].ends
    run.metrics = small[0].metrics[small[0].metrics.step <= (2 * formed + cleaned) / 2]
    found = phase_shares(run)
    assert (found.label, found.ends) == ("grokked", None)
    assert found.notes[0] == "no shares: the end of cleanup is not dated"


def test_steps_that_nobody_knows(monkeypatch):
    run = gi.load("mod31-small")
    monkeypatch.setattr(run.manifest, "steps_known", False)
    nothing(phase_shares(run), "nobody knows the steps")


def test_a_module_without_a_split():
    task = gi.ModularTask("add", p=5)
    module = torch.nn.Sequential(torch.nn.EmbeddingBag(6, 4), torch.nn.Linear(4, 5))
    nothing(phase_shares(module, task=task), "phases are null")


def test_measures_that_are_none_are_refused():
    with pytest.raises(gi.InputError, match="is no table of measures"):
        phase_shares("mod31-small", measures="measures.csv")


def test_a_figure_has_a_bar_a_measure(small):
    drawn = small[1].plot()
    assert [bar.name for bar in drawn.data] == ["memorization", "circuit formation", "cleanup"]
    for bar, part in zip(drawn.data, PARTS, strict=True):
        assert list(bar.x) == [getattr(each, part) for each in small[1].shares[::-1]]


def test_its_columns(small):
    run, found = small
    row = MEASURES.find("phase_shares").columns_of_run(run)
    assert row["share_test_acc_unmirrored_cleanup"] == found["test_acc_unmirrored"].cleanup
    assert len(row) == 6
    assert columns(run).keys() == {name.removeprefix("share_") for name in row}
