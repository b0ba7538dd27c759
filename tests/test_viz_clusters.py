from dataclasses import replace

import pytest
import torch

from grokinterp.circuits import neuron_clusters
from grokinterp.figures._figure import faded
from tests.labels import axis_titles


@pytest.mark.parametrize("step", [0, -1])
def test_every_neuron_is_a_dot_at_its_place_in_the_table(shipped, step):
    found = neuron_clusters(shipped, step=step)
    table = found.table().set_index("neuron")
    figure = found.plot()
    *bars, key, other, leftover = figure.data
    assert [trace.name for trace in figure.data] == [
        "key", "not key", "key", "not key", "leftover",
    ]  # fmt: skip
    assert len(key.x) == table.key.sum()
    assert len(leftover.x) == ((table.cluster == -1) & ~table.dead).sum()
    seen = []
    for dots in (key, other, leftover):
        for x, y, size, (neuron, quadratic, share) in zip(
            dots.x, dots.y, dots.marker.size, dots.customdata, strict=True
        ):
            row = table.loc[int(neuron)]
            assert (x, y, quadratic) == (row.leading, row.fraction, row.quadratic_fraction)
            assert size == share == row.variance_share
            seen.append(int(neuron))
    assert sorted(seen) == table.index[~table.dead].tolist()
    sizes = {k: n for bar in bars for k, n in zip(bar.x, bar.y, strict=True)}
    assert sizes == {k: n for k, n in found.sizes.items() if k != -1}
    assert axis_titles(figure) == (
        {"leading frequency k (cycles around the group)"}, {"neurons", "fraction explained"},
    )  # fmt: skip
    assert bars[0].hovertemplate == (
        "cluster k = %{x}: %{y} neurons<br>share of variance %{customdata:.5g}<extra></extra>"
    )
    assert key.hovertemplate == (
        "neuron %{customdata[0]}, k = %{x}<br>fraction %{y:.5g}<br>quadratic fraction "
        "%{customdata[1]:.5g}<br>share of variance %{customdata[2]:.5g}<extra></extra>"
    )
    assert figure.layout.title.text.startswith(f"Neurons of layer 0, step {found.step}<br>")
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == found.threshold
    assert f"{found.sizes[-1]} of 512 neurons" in figure.layout.title.text


def test_a_cluster_that_is_not_key_has_its_own_colour(shipped):
    found = neuron_clusters(shipped, frequencies=(9, 18))
    key, other, *dots = found.plot().data
    assert tuple(key.x) == (9, 18)
    assert tuple(other.x) == (53, 55)
    assert set(dots[0].x) == {9, 18}
    assert set(dots[1].x) == {53, 55}
    colours = ("#009E73", "#D55E00", "#999999")
    assert [trace.marker.color for trace in dots] == [faded(colour, 0.55) for colour in colours]
    assert [trace.marker.color for trace in (key, other)] == ["#009E73", "#D55E00"]


def test_dead_neurons_are_counted_and_not_drawn(shipped):
    found = neuron_clusters(shipped)
    leading, fraction = found.leading.clone(), found.fraction.clone()
    leading[:3], fraction[:3] = 0, torch.nan
    figure = replace(found, leading=leading, fraction=fraction).plot()
    assert sum(len(trace.x) for trace in figure.data[2:]) == 509
    assert "3 of them dead" in figure.layout.title.text
