import pytest

import grokinterp as gi
from grokinterp.circuits import attribution


@pytest.mark.parametrize("step", [0, -1])
def test_bars_are_the_cells_of_the_table(shipped, step):
    found = attribution(shipped, step=step)
    table = found.by_frequency().drop(index="all parts")
    figure = found.plot()
    bars = figure.data
    assert figure.layout.xaxis.title.text == "margin added (logits)"
    assert bars[0].hovertemplate == "%{y}, %{fullData.name}<br>%{x:.5g} logits<extra></extra>"
    assert [bar.name for bar in bars] == [
        "k = 9", "k = 18", "k = 53", "k = 55", "other", "constant", "rest",
    ]  # fmt: skip
    for bar, column in zip(bars, table, strict=False):
        assert (bar.x == table[column]).all()
        assert list(bar.y) == list(found.parts)
    assert sum(sum(bar.x) for bar in bars) == pytest.approx(found.total, abs=1e-9)
    assert f"{found.total:.4g} logits" in found.plot().layout.title.text


def test_without_frequencies_every_bar_is_whole(tiny, tmp_path):
    run = gi.train(tiny.replace(operation="random", steps=0), tmp_path / "run")
    found = attribution(run)
    (bar,) = found.plot().data
    assert (bar.x == found.table().margin).all()
    assert bar.name == "margin"
