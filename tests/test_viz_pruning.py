import pytest

import grokinterp as gi
from grokinterp.encodings import pruning_curve
from grokinterp.viz import plot_pruning_curves


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
