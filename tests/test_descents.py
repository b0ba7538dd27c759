"""Two descents and a peak: curves made by hand, logs of others, and the shipped runs."""

import math

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.progress import MEASURES, descents

pytestmark = pytest.mark.shapes_unchecked

CONDITIONS = ("first_descent", "ascent", "second_descent", "at_interpolation")


def log(*, low=2.0, peak=3.0, end=0.0, fitted=500, start=4.0):
    """Curves that fall, rise to a peak at 500 and fall again, an error of the same shape."""
    steps = np.arange(0, 1001, 10)
    loss = np.interp(steps, [0, 200, 500, 1000], [start, low, peak, end])
    error = loss / 5
    return pd.DataFrame(
        {"step": steps, "test_loss": loss, "test_acc": 1 - error,
         "train_acc": np.where(steps >= fitted, 1.0, 0.3), "train_loss": 1.0}
    )  # fmt: skip


@pytest.fixture(scope="module")
def steady():
    run = gi.load("mod113-steady")
    return run, descents(run)


class TestHandMadeCurves:
    def test_double_descent_meets_all_five(self):
        found = descents(log(), n_classes=50)
        assert set(found.conditions.values()) == {True}
        assert found.double_descent
        loss = found.loss
        # The running median cuts the corners off; what is reported is what was logged.
        assert (loss.min1.step, loss.min1.value) == (200, 2.0)
        assert (loss.peak.step, loss.peak.value) == (500, 3.0)
        assert (loss.min2.step, loss.min2.value, loss.end) == (1000, 0.0, 0.0)
        assert (found.t_interp, loss.ratio) == (500, 1.0)
        assert loss.chance == math.log(50)
        assert found.error.chance == 0.98
        assert [each.kind for each in loss.extremes] == ["max", "min", "max", "min"]

    @pytest.mark.parametrize(
        ("options", "missing"),
        [
            ({"low": 3.95, "start": 4.2, "peak": 4.5}, "first_descent"),  # ln 50 = 3.91
            ({"low": 2.0, "peak": 2.05}, "ascent"),
            ({"end": 2.5}, "second_descent"),
            ({"fitted": 240}, "at_interpolation"),
        ],
    )
    def test_each_condition_can_fail_alone(self, options, missing):
        found = descents(log(**options), n_classes=50)
        assert getattr(found.loss, missing) is False
        assert not found.double_descent
        if missing != "ascent":  # without a peak there is no second one, nor one at interpolation
            others = [name for name in CONDITIONS if name != missing]
            assert all(getattr(found.loss, name) for name in others)

    def test_the_error_has_to_do_the_same(self):
        table = log()
        table["test_acc"] = np.linspace(0, 1, len(table))
        found = descents(table, n_classes=50)
        assert found.loss.holds
        assert found.conditions["same_on_error"] is False
        assert found.double_descent is False

    def test_wiggles_are_no_extremes(self):
        table = log()
        table["test_loss"] += 0.04 * (-1.0) ** np.arange(len(table))
        table.loc[30, "test_loss"] = 50  # a single row, which the median takes out
        found = descents(table, n_classes=50)
        assert [each.kind for each in found.loss.extremes] == ["max", "min", "max", "min"]
        assert found.double_descent

    def test_without_classes_and_without_train_something_is_unknown(self):
        found = descents(log())
        assert found.loss.first_descent is None
        assert found.double_descent is None
        assert any("n_classes=" in note for note in found.notes)
        found = descents(log().drop(columns=["train_acc", "train_loss"]), n_classes=50)
        assert found.t_interp is found.loss.ratio is found.loss.at_interpolation is None
        assert any("there is no train curve" in note for note in found.notes)

    def test_a_memoriser_ascends_and_stays(self):
        table = log(end=5.0)
        table["test_loss"] = np.interp(table.step, [0, 200, 1000], [4, 2, 9])
        found = descents(table, n_classes=50)
        assert (found.loss.peak.value, found.loss.min2) == (9.0, None)
        assert (found.loss.ascent, found.loss.second_descent) == (True, False)

    def test_flat_and_short_curves(self):
        flat = log(low=4.0, peak=4.0, end=4.0)
        found = descents(flat, n_classes=50)
        assert found.loss.extremes == ()
        assert found.loss.min1 is found.loss.peak is None
        assert found.double_descent is False
        assert "its extremes" not in [each.name for each in found.plot().data[:2]]
        short = descents(log().head(3), n_classes=50)
        assert short.double_descent is None
        assert any("known at 3 steps" in note for note in short.notes)

    def test_losses_or_accuracies_alone(self):
        only = descents(log()[["step", "test_loss"]], n_classes=50)
        assert only.error is None
        assert len(only.table()) == 1
        assert "there is no test accuracy" in only.notes
        only = descents(log()[["step", "train_acc", "test_acc"]], n_classes=50)
        assert only.loss is None
        assert only.error.holds
        assert only.double_descent is None
        assert len(only.plot().data) == 2


class TestLogs:
    def test_a_file_with_names_of_others(self, tmp_path):
        theirs = log().rename(columns={"step": "epoch", "test_loss": "val/loss"})
        theirs.to_csv(tmp_path / "log.csv", index=False)
        found = descents(tmp_path / "log.csv", n_classes=50)
        assert found.loss.peak == descents(log()).loss.peak
        assert any("read epoch as step" in note for note in found.notes)
        named = descents(str(tmp_path / "log.csv"), columns={"test_loss": "val/loss"})
        assert named.loss.peak.value == 3.0

    def test_several_runs_have_one_each(self):
        both = pd.concat([log().assign(seed=3), log(end=2.5).assign(seed=4)])
        found = descents(both, n_classes=50)
        assert [found[name].double_descent for name in ("3", "4")] == [True, False]
        assert found.table().run.tolist() == ["3", "3", "4", "4"]
        assert [each["run"] for each in found.to_dict()["runs"]] == ["3", "4"]
        assert "run" in str(found)
        with pytest.raises(gi.InputError, match="there is no run '5'; there are 3, 4"):
            found["5"]
        with pytest.raises(gi.InputError, match="ResultsOfRuns cannot be drawn here"):
            gi.viz.plot_descents(both)

    def test_what_is_none_is_refused(self):
        for x, options, message in (
            (5, {}, "5 has no curves; give a run"),
            (log(), {"n_classes": 1}, "n_classes=1 is not a whole number from 2 on"),
            (log(), {"measures": "x"}, "no table of measures"),
        ):
            with pytest.raises(gi.InputError, match=message):
                descents(x, **options)


class TestShippedRuns:
    def test_mod113_grokked(self, shipped):
        found = descents(shipped)
        peak = found.loss.peak
        assert (peak.step, peak.value) == (1360, pytest.approx(25.93, abs=0.01))
        assert (found.t_interp, found.loss.ratio) == (170, 8.0)
        assert found.loss.first_descent is found.loss.at_interpolation is False
        assert found.loss.min1.value == pytest.approx(4.735, abs=1e-3)
        assert found.error.curve == "test_error_unmirrored"
        assert found.double_descent is False

    def test_mlp113_grokked(self):
        found = descents("mlp113-grokked")
        one, two = found.loss.min1, found.loss.peak
        assert (one.step, two.step) == (420, 2660)
        assert (one.value, two.value) == pytest.approx((8.41, 11.30), abs=0.005)
        assert found.loss.ratio == pytest.approx(1.36, abs=0.005)
        held = [getattr(found.loss, name) for name in CONDITIONS]
        assert held == [False, True, True, True]  # it starts far above ln 113

    def test_mod113_steady_has_a_hump_too(self, steady):
        loss = steady[1].loss
        assert (loss.start, loss.peak.value, loss.end) == pytest.approx(
            (4.73, 5.28, 0.042), abs=0.005
        )
        assert loss.peak.step == 90

    def test_unmirrored_error_is_that_of_the_logits_or_of_measures(self, steady):
        run, found = steady
        seen = run.snapshot(1000)
        wrong = seen.logits.argmax(1) != seen.task.labels
        error = found.error.values.set_index("step").value
        assert error[1000] == pytest.approx(float(wrong[seen.unmirrored_rows].double().mean()))
        given = pd.DataFrame({"step": run.steps, "test_acc_unmirrored": 0.25})
        assert set(descents(run, measures=given).error.values.value) == {0.75}

    def test_its_columns(self):
        run = gi.load("mod31-small")
        row = MEASURES.find("descents").columns_of_run(run)
        loss = descents(run).loss
        assert (row["descents_peak"], row["descents_peak_step"]) == (loss.peak.value, 150)
        assert row["descents_double_descent"] is False


def test_one_checkpoint_and_unknown_steps(monkeypatch):
    run = gi.load("mod31-small")
    found = descents(run.snapshot())
    assert found.double_descent is None
    assert len(found.plot().data) == 2  # and no extremes
    monkeypatch.setattr(run.manifest, "steps_known", False)
    found = descents(run)
    assert found.t_interp is found.loss.at_interpolation is None
    assert found.loss.peak is not None
    assert any("nobody knows the steps" in note for note in found.notes)


def test_a_model_without_a_split_has_no_curves():
    seen = gi.load("mod31-small").snapshot()
    found = descents(seen.hooked(), task=seen.task)
    assert found.loss is found.error is None
    assert len(found.table()) == 0
    assert any("split is missing" in note for note in found.notes)
    assert "split is missing" in found.plot().layout.annotations[0].text


def test_a_figure_marks_the_extremes():
    found = descents(log(), n_classes=50)
    drawn = found.plot()
    assert drawn.layout.title.text.endswith(": double descent")
    marks = drawn.data[1]
    assert list(marks.x) == [0, 200, 500, 1000]
    assert list(marks.y) == [4.0, 2.0, 3.0, 0.0]
    assert list(drawn.data[0].y) == found.loss.values.value.tolist()
