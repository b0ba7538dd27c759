import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.figures._figure import STEPS
from grokinterp.fourier import frequency_shares
from grokinterp.viz import plot_emergence, plot_progress


@pytest.fixture(scope="module")
def phases(shipped, shipped_measures):
    return gi.detect_phases(shipped, measures=shipped_measures)


def shaded(figure):
    return [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]


def test_phases_are_shaded_where_they_are(phases):
    figure = phases.plot()
    assert [trace.name for trace in figure.data] == ["train loss", "test loss"]
    assert shaded(figure) == [(phase.start, phase.end) for phase in phases.phases]
    assert "grokked" in figure.layout.title.text
    assert "nats" in figure.layout.yaxis.title.text
    assert figure.layout.meta == {"x": "step"}


def test_phases_and_crossings_are_named_in_the_legend(phases):
    shapes = phases.plot().layout.shapes
    assert all(shape.showlegend for shape in shapes)
    assert [shape.name for shape in shapes] == [
        "memorization", "circuit formation", "cleanup",
        f"memorization_step {phases.memorization_step}", f"grok_step {phases.grok_step}",
    ]  # fmt: skip
    assert [shape.x0 for shape in shapes[3:]] == [phases.memorization_step, phases.grok_step]


def test_the_accuracy_of_the_same_row_is_told_on_hover(phases):
    train, test = phases.plot().data
    assert (test.customdata == phases.curves.test_acc).all()
    assert (train.customdata == phases.curves.train_acc).all()
    assert "accuracy %{customdata" in test.hovertemplate


def test_accuracies_alone_are_drawn_too(shipped):
    found = gi.detect_phases(shipped.metrics[["step", "test_acc"]])
    (line,) = found.plot().data
    assert line.name == "test accuracy"
    assert line.customdata is None
    assert gi.detect_phases(pd.DataFrame({"step": [0], "test_loss": [1.0]})).plot().data


def test_progress_draws_the_columns_of_the_table(shipped_measures, phases):
    figure = plot_progress(shipped_measures, phases=phases)
    *losses, fit, placebo, answered, norm = figure.data
    assert [line.name for line in losses] == [
        "train loss", "test loss", "restricted loss", "excluded loss", "trig loss",
    ]  # fmt: skip
    for line in figure.data:
        assert (line.x == shipped_measures.step).all()
    for line in losses:
        assert (line.y == shipped_measures[line.name.replace(" ", "_")]).all()
        assert line.yaxis == "y"
    assert (norm.y == np.sqrt(shipped_measures.sum_sq_weights)).all()
    for line, column in (
        (fit, "restricted_acc_heldout"),
        (placebo, "restricted_acc_heldout_placebo"),
        (answered, "test_acc_unmirrored"),
    ):
        assert (line.y == shipped_measures[column]).all()
        assert line.yaxis == "y2"
    assert norm.yaxis == "y3"
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis2.type is figure.layout.yaxis3.type is None
    assert figure.layout.xaxis3.title.text == STEPS
    assert figure.layout.xaxis.matches == figure.layout.xaxis2.matches == "x3"
    # Every phase in all panels, in the legend once.
    assert sorted(shaded(figure)) == sorted(3 * shaded(phases.plot()))
    named = [shape.name for shape in figure.layout.shapes if shape.showlegend]
    assert named == [shape.name for shape in phases.plot().layout.shapes]


def test_what_is_null_at_every_step_is_left_out(shipped_measures):
    table = shipped_measures.assign(restricted_loss=np.nan).drop(columns="trig_loss")
    names = [line.name for line in plot_progress(table).data]
    assert names == [
        *("train loss", "test loss", "excluded loss", "held-out restricted accuracy"),
        *("best of its placebos", "accuracy on the same pairs", "weight norm"),
    ]
    plain = plot_progress(table.assign(restricted_acc_heldout=np.nan))
    assert [line.name for line in plain.data] == [
        *("train loss", "test loss", "excluded loss", "weight norm"),
    ]
    assert plain.data[-1].yaxis == "y2"
    # Where there are no mirrors, all test pairs are unmirrored.
    (line,) = (
        line
        for line in plot_progress(table.assign(test_acc_unmirrored=np.nan)).data
        if line.name == "accuracy on the same pairs"
    )
    assert (line.y == table.test_acc).all()
    (point,) = plot_progress(table[:1][["step", "test_loss"]]).data
    assert point.mode == "markers"
    for wrong in (table[["step"]], table.drop(columns="step")):
        with pytest.raises(gi.InputError, match="no table of progress measures"):
            plot_progress(wrong)


@pytest.mark.slow
def test_every_frequency_emerges_in_its_line(shipped):
    shares = frequency_shares(shipped)
    keys = gi.key_frequencies(shipped).frequencies
    figure = plot_emergence(shares, frequencies=keys)
    each, together, *lines = figure.data
    assert figure.layout.xaxis.title.text == STEPS
    assert [line.name for line in lines] == [f"k = {k}" for k in keys]
    for k, line in zip(keys, lines, strict=True):
        assert (line.x == shares.index).all()
        assert (line.y == shares[k]).all()
    rest = [k for k in shares if k not in keys]
    assert np.allclose(together.y, shares[rest].sum(axis=1), rtol=1e-12, atol=0)
    # The grey lines, told apart again by their k: each is a column of the table, then a gap.
    grey = pd.DataFrame({"k": each.customdata, "x": each.x, "y": each.y})
    assert grey.k.unique().tolist() == rest
    for k, line in grey.groupby("k"):
        assert line.y.isna().tolist() == [False] * len(shares) + [True]
        assert (line.y[:-1].to_numpy() == shares[k]).all()
        assert (line.x[:-1].to_numpy() == shares.index).all()


@pytest.mark.shapes_unchecked
def test_what_is_no_table_of_shares_is_refused(shipped_measures, tiny_run):
    with pytest.raises(gi.InputError, match="no table of shares"):
        plot_emergence(shipped_measures, frequencies=(1,))
    shares = frequency_shares(tiny_run)
    with pytest.raises(gi.InputError, match="frequency 9 is not in the table"):
        plot_emergence(shares, frequencies=(1, 9))
    with pytest.raises(gi.InputError, match="frequency '3' is not in the table"):
        plot_emergence(shares, frequencies="3")
    assert len(plot_emergence(shares, frequencies=()).data) == 2


def test_a_frequency_given_twice_is_one_line(tiny_run):
    figure = plot_emergence(frequency_shares(tiny_run), frequencies=[3, 3, np.int64(3)])
    assert [trace.name for trace in figure.data[2:]] == ["k = 3"]
