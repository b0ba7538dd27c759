import math

import pytest
import torch

import grokinterp as gi
from grokinterp.figures._figure import STEPS
from grokinterp.geometry.paths import information_path, path_of
from grokinterp.geometry.predictions import trajectory_embedding
from grokinterp.viz import plot_trajectories
from tests.conftest import SHIPPED
from tests.labels import axis_titles


@pytest.fixture(scope="module")
def runs(shipped):
    return {"grokked": shipped, "steady": gi.load(SHIPPED.parent / "mod113-steady")}


@pytest.fixture(scope="module")
def embedding(runs):
    return trajectory_embedding(runs, n_samples=16, most=8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_run_is_a_line_through_its_checkpoints(embedding, dimensions):
    figure = embedding.plot(dimensions=dimensions)
    table = embedding.table()
    assert [line.name for line in figure.data] == table.run.unique().tolist()
    for line in figure.data:
        rows = table[table.run == line.name]
        for axis, column in list(zip("xyz", ("x1", "x2", "x3"), strict=True))[:dimensions]:
            assert (getattr(line, axis) == rows[column]).all()
        assert (line.customdata == rows.step).all()
        symbols = line.marker.symbol
        assert (symbols[0], symbols[-1]) == ("circle-open", "diamond")
        assert set(symbols[1:-1]) == {"circle"}
    assert f"stress {embedding.stress:.4g}" in figure.layout.title.text
    axes = figure.layout if dimensions == 2 else figure.layout.scene
    assert f"{embedding.explained[1]:.1%}" in axes.yaxis.title.text
    assert axes.yaxis.title.text.startswith("x2 (")
    assert axes.yaxis.title.text.endswith("), nats<sup>1/2</sup>")
    named = zip("xyz"[:dimensions], "123", strict=False)
    told = "".join(f"<br>x{n} %{{{axis}:.5g}} nats<sup>1/2</sup>" for axis, n in named)
    assert figure.data[0].hovertemplate == (
        f"%{{fullData.name}}<br>step %{{customdata}}{told}<extra></extra>"
    )


def test_axes_have_one_scale(embedding):
    assert embedding.plot().layout.yaxis.scaleanchor == "x"
    assert embedding.plot(dimensions=3).layout.scene.aspectmode == "data"


def test_an_axis_that_counts_backwards_says_so(embedding):
    titles = [axis.title.text for axis in (embedding.plot().layout.xaxis,
                                           embedding.plot().layout.yaxis)]  # fmt: skip
    for title, value in zip(titles, embedding.eigenvalues, strict=False):
        assert ("backwards" in title) == (value < 0)


def test_dimensions_that_cannot_be_drawn_are_refused(embedding, runs):
    with pytest.raises(gi.InputError, match="give such as 2 or 3"):
        plot_trajectories(embedding, dimensions=4)
    flat = trajectory_embedding(runs, n_samples=8, most=2, dimensions=2)
    with pytest.raises(gi.InputError, match="has 2 dimensions"):
        plot_trajectories(flat, dimensions=3)


def test_length_so_far_and_distance_from_the_start(shipped):
    path = information_path(shipped, n_samples=16)
    figure = path.plot()
    length, distance = figure.data
    assert tuple(length.x) == tuple(distance.x) == path.steps
    for i, step in enumerate(path.steps):
        part = path.between(path.steps[0], step)
        assert length.y[i] == pytest.approx(part.length, rel=1e-12, abs=1e-15)
        assert distance.y[i] == part.geodesic
    assert f"straightness {path.straightness:.4g}" in figure.layout.title.text
    assert figure.layout.meta == {"x": "step"}
    assert axis_titles(figure) == ({STEPS}, {"distance (nats<sup>1/2</sup>)"})
    assert length.hovertemplate == distance.hovertemplate == "%{y:.5g} nats<sup>1/2</sup>"


def test_a_straight_line_and_no_motion():
    line = torch.tensor([0.0, 1.0, 3.0])
    straight = path_of((line[:, None] - line).abs(), [0, 10, 20]).plot()
    assert straight.data[0].y == straight.data[1].y == (0, 1, 3)
    still = path_of(torch.zeros(2, 2), [0, 1])
    assert math.isnan(still.straightness)
    assert "no motion" in still.plot().layout.title.text


def test_a_name_is_no_markup(tiny_run):
    hostile = "<b>%{x}</b> & co"
    figure = trajectory_embedding({hostile: tiny_run}, dimensions=2).plot()
    assert figure.data[0].name == "&lt;b&gt;%{x}&lt;/b&gt; &amp; co"
    assert "co" not in figure.data[0].hovertemplate
