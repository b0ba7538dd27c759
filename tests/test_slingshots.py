"""Spikes of the train loss after memorising: made by hand, in logs, and in the shipped runs."""

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.progress import MEASURES, slingshots

pytestmark = pytest.mark.shapes_unchecked


def log(*, spikes=(), memorized=300, n=201):
    """A loss of 1e-3 with rows multiplied: {row: factor}, and accuracies that are learned."""
    steps = np.arange(n) * 10
    loss = np.full(n, 1e-3)
    for row, factor in dict(spikes).items():
        loss[row] *= factor
    return pd.DataFrame(
        {"step": steps, "train_loss": loss, "train_acc": np.where(steps >= memorized, 1.0, 0.2)}
    )


def test_neighbouring_spikes_are_one():
    found = slingshots(log(spikes={100: 20, 101: 50, 102: 11, 150: 12}))
    assert found.n == 2
    one, two = found.slingshots
    assert (one.first, one.last, one.step) == (1000, 1020, 1010)
    assert (one.train_loss, one.ratio) == pytest.approx((0.05, 50))
    assert (two.first, two.last, two.ratio) == (1500, 1500, pytest.approx(12))
    assert (found.largest, found.largest_at, found.begin) == (pytest.approx(50), 1010, 500)
    assert found.table().step.tolist() == [1010, 1500]


def test_below_ten_times_and_before_the_time_there_is_none():
    quiet = slingshots(log(spikes={49: 1000, 100: 9.9}))
    assert quiet.slingshots == ()
    assert quiet.largest == pytest.approx(9.9)
    assert slingshots(log(spikes={50: 1000})).n == 1  # 200 steps after memorising
    assert slingshots(log(spikes={100: 9.9}), times=5).n == 1


def test_the_median_is_that_of_21_rows():
    generator = np.random.default_rng(0)
    table = log()
    table["train_loss"] = np.exp(generator.normal(size=len(table)))
    found = slingshots(table)
    padded = np.pad(table.train_loss, 10, mode="edge")
    median = [np.median(padded[i : i + 21]) for i in range(len(table))]
    assert found.curve["median"].tolist() == pytest.approx(median)
    assert found.curve.ratio.tolist() == pytest.approx((table.train_loss / median).tolist())
    assert found.largest == pytest.approx((table.train_loss / median)[50:].max())


def test_the_shipped_runs():
    steady = slingshots("mod113-steady")
    assert [each.step for each in steady.slingshots] == [730]
    assert steady.largest == pytest.approx(10.5, abs=0.05)
    for name in ("mod113-grokked", "mlp113-grokked"):
        found = slingshots(name)
        assert found.n == 0
        assert found.largest < 1.025
    assert slingshots("mod113-grokked").largest == pytest.approx(1.02, abs=0.005)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (log(memorized=10**6), "memorising is undated"),
        (log(n=60), "10 rows from step 500 on"),
        (log().drop(columns="train_loss"), "there is no train loss"),
        (log().drop(columns="train_acc").assign(train_loss=1.0), "memorising is undated"),
        (log().assign(train_loss=0.0), "no row has a ratio"),
    ],
)
def test_what_cannot_be_said(table, why):
    found = slingshots(table)
    assert found.slingshots is found.n is found.largest is None
    assert any(why in note for note in found.notes)
    assert why in str(found)
    assert found.plot().layout.title.text == "Slingshots: unknown"


def test_losses_that_are_rounded_to_zero_are_left_out():
    table = log(spikes={100: 30})
    table.loc[table.step > 1500, "train_loss"] = 0.0
    found = slingshots(table)
    assert [each.step for each in found.slingshots] == [1000]
    assert any("rows have a median of 0" in note for note in found.notes)


def test_logs_of_several_runs_and_files(tmp_path):
    both = pd.concat([log(spikes={100: 30}).assign(seed=0), log().assign(seed=1)])
    found = slingshots(both)
    assert [found[name].n for name in ("0", "1")] == [1, 0]
    assert found.table()[["run", "step"]].to_numpy().tolist() == [["0", 1000]]
    log(spikes={100: 30}).to_csv(tmp_path / "log.csv", index=False)
    assert slingshots(str(tmp_path / "log.csv")).n == 1


def test_snapshots_and_unknown_steps(monkeypatch):
    run = gi.load("mod31-small")
    assert slingshots(run.snapshot()).slingshots is None
    monkeypatch.setattr(run.manifest, "steps_known", False)
    assert "nobody knows the steps" in slingshots(run).notes[-1]


def test_wrong_arguments_are_refused():
    for x, options, message in (
        (None, {}, "None has no curves"),
        (log(), {"times": 1}, "times=1 is not a number above 1"),
        ("mod31-small", {"by": "seed"}, "by= is for logs"),
    ):
        with pytest.raises(gi.InputError, match=message):
            slingshots(x, **options)


def test_a_figure_marks_them():
    drawn = slingshots(log(spikes={100: 30})).plot()
    assert drawn.layout.title.text == "Slingshots: 1"
    assert list(drawn.data[2].x) == [1000]
    assert list(drawn.data[1].y) == pytest.approx([0.01] * 151)


def test_its_columns():
    entry = MEASURES.find("slingshots")
    row = entry.columns_of_run(gi.load("mod113-steady"))
    assert row["slingshots_n"] == 1
    assert row["slingshots_largest_step"] == 730
    with pytest.raises(gi.InputError, match="memorising is undated"):
        entry.columns_of_run(gi.load("ising-steady"))
