import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.encodings import pruning_curve
from grokinterp.fourier.localization import fourier_heat_map
from grokinterp.viz import plot_fourier_heat_map, plot_pruning_curves


def test_phases_are_shaded_where_they_are(shipped, shipped_measures):
    found = gi.detect_phases(shipped, measures=shipped_measures)
    figure = found.plot()
    assert [trace.name for trace in figure.data] == ["train loss", "test loss"]
    shaded = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert shaded == [(phase.start, phase.end) for phase in found.phases]
    assert "grokked" in figure.layout.title.text
    assert "nats" in figure.layout.yaxis.title.text


def test_accuracies_alone_are_drawn_too(shipped):
    found = gi.detect_phases(shipped.metrics[["step", "test_acc"]])
    assert [trace.name for trace in found.plot().data] == ["test accuracy"]
    assert gi.detect_phases(pd.DataFrame({"step": [0], "test_loss": [1.0]})).plot().data


def test_every_frequency_has_its_bar(shipped):
    found = gi.key_frequencies(shipped.snapshot())
    key, other = found.plot().data
    assert tuple(key.x) == found.frequencies
    assert sorted([*key.x, *other.x]) == list(range(1, 57))
    assert dict(zip(key.x, key.y, strict=True)) == {k: found.shares[k] for k in found}


def test_a_task_without_frequencies_has_nothing_to_draw(tiny, tmp_path):
    run = gi.train(tiny.replace(operation="random", steps=0), tmp_path / "run")
    with pytest.raises(gi.InputError, match="no frequencies to draw"):
        gi.key_frequencies(run).plot()


def test_pruning_curves_have_their_c_in_the_legend(tiny_run):
    grid = [0, 0.25, 1]
    curve = pruning_curve(tiny_run, fractions=grid)
    (line,) = curve.plot().data
    assert (list(line.x), list(line.y)) == (grid, curve.acc_test.tolist())
    assert line.name == f"c = {curve.c:.3g}"
    singular = pruning_curve(tiny_run, fractions=grid, basis="singular")
    figure = plot_pruning_curves({"weights": curve, "ranks": singular})
    assert [line.name for line in figure.data] == [
        f"weights, c = {curve.c:.3g}", f"ranks, c = {singular.c:.3g}",
    ]  # fmt: skip
    assert len({line.line.color for line in figure.data}) == 2
    assert "weights or singular values" in figure.layout.xaxis.title.text
    assert "test" in figure.layout.yaxis.title.text
    with pytest.raises(gi.InputError, match="no curves"):
        plot_pruning_curves({})


def test_the_fourier_heat_map_keeps_the_order_of_the_table(tiny_run):
    shares = fourier_heat_map(tiny_run.snapshot())
    figure = plot_fourier_heat_map(shares)
    (drawn,) = figure.data
    assert (drawn.z == shares.to_numpy()).all()
    assert list(drawn.y) == shares.index.tolist()
    assert list(drawn.customdata[0]) == shares.columns.tolist()
    assert "input" in figure.layout.title.text
    with pytest.raises(gi.InputError, match="no Fourier heat map"):
        plot_fourier_heat_map(pd.DataFrame({"a": [1.0]}))
