"""Circles of the embedding: points against circles built by hand and dense projections."""

import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._figures.circles import embedding_circles, plane_coordinates
from grokinterp.circuits.circles import centred_embedding
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from grokinterp.viz import plot_embedding_circles
from tests.labels import axis_titles
from tests.test_architectures import P, example


def angles(n, k):
    return 2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n


@pytest.mark.parametrize(("n", "k"), [(7, 3), (12, 5), (12, 4)])
def test_a_perfect_circle_is_found_in_its_own_coordinates(n, k):
    """Radius 2 in a rotated plane, another circle beside it, and a mean: neither of them shows."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    own = torch.stack([angles(n, k).cos(), angles(n, k).sin()], dim=1)
    other = torch.stack([angles(n, 1).cos(), angles(n, 1).sin()], dim=1)
    tokens = 2 * own @ rotation[:2] + 3 * other @ rotation[2:4]
    assert torch.allclose(plane_coordinates(tokens, k), 2 * own, atol=1e-12)


def test_noise_shows_as_it_stands_in_the_plane():
    """A token moved within the plane moves in the picture; moved out of it, it stays."""
    n, k = 101, 7
    tokens = torch.zeros(n, 3, dtype=torch.float64)
    tokens[:, 0], tokens[:, 1] = angles(n, k).cos(), angles(n, k).sin()
    moved = tokens.clone()
    moved[0] += torch.tensor([0.5, 0.0, 0.0])
    found = plane_coordinates(moved, k)
    assert torch.allclose(found[0], torch.tensor([1.5, 0.0], dtype=torch.float64), atol=1e-9)
    out = tokens.clone()
    out[:, 2] = torch.where(torch.arange(n) % 2 == 0, 0.1, -0.1)
    out[:, 2] -= torch.stack([f(angles(n, k)) * (2 / n) * (f(angles(n, k)) @ out[:, 2])
                              for f in (torch.cos, torch.sin)]).sum(0)  # fmt: skip
    assert torch.allclose(plane_coordinates(out, k), tokens[:, :2], atol=1e-12)


def test_coordinates_are_the_projection_on_the_plane_of_cos_and_sin():
    """Norms against least squares on the two directions; the first axis is that of cos."""
    n, k = 9, 2
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    c, s = angles(n, k).cos() @ tokens, angles(n, k).sin() @ tokens
    plane = torch.stack([c, s])
    found = plane_coordinates(tokens, k)
    projected = tokens @ torch.linalg.pinv(plane) @ plane
    assert torch.allclose(found.norm(dim=1), projected.norm(dim=1))
    assert torch.allclose(found[:, 0], tokens @ c / c.norm())
    assert float((found.T @ angles(n, k).sin())[1]) > 0


def test_axes_that_do_not_exist_are_0():
    waves = angles(8, 4).cos()[:, None] * torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    found = plane_coordinates(waves, 4)  # 2 k = n has no sine
    assert torch.allclose(found, torch.stack([3 * angles(8, 4).cos(), torch.zeros(8)], dim=1))
    assert not plane_coordinates(torch.zeros(7, 3, dtype=torch.float64), 2).any()


@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_points_are_tokens_in_the_order_of_the_circle(operation):
    architecture, weights, _ = example("canonical")
    snapshot = from_weights(weights, architecture, ModularTask(operation, P))
    order = [1, 3, 2, 6, 4, 5] if operation == "multiply" else list(range(P))
    n, keys = len(order), [1, 2]
    figure = plot_embedding_circles(snapshot, frequencies=keys)
    assert len(figure.data) == 2
    tokens = weights["embed.W_E"][order]
    tokens = tokens - tokens.mean(0)
    reach = 0.0
    for trace, k in zip(figure.data, keys, strict=True):
        token, exponent, degrees = np.array(trace.customdata).T
        own = plane_coordinates(tokens, k)[exponent.astype(int)]
        assert np.allclose(np.stack([trace.x, trace.y], axis=1), own, atol=1e-6)
        assert [order[int(e)] for e in exponent] == token.tolist()
        assert sorted(token[:-1]) == sorted(order)
        assert token[0] == token[-1]  # closed
        assert degrees.tolist() == pytest.approx([360 * (k * e % n) / n for e in exponent])
        assert (np.diff(degrees[:-1]) >= 0).all()
        if math.gcd(k, n) == 1:
            step = pow(k, -1, n)
            assert (np.diff(exponent) % n == step).all()
        assert trace.marker.color.tolist() == exponent.tolist()
        assert (trace.marker.cmin, trace.marker.cmax) == (0, n)
        reach = max(reach, float(own.abs().max()))
    title = figure.data[0].marker.colorbar.title.text
    assert title == ("token x" if operation == "add" else "exponent of token x")
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        assert axis.range == pytest.approx((-1.08 * reach, 1.08 * reach))
    assert figure.layout.yaxis2.scaleanchor == "x2"
    assert axis_titles(figure) == ({"along cos"}, {"along sin"})
    exponent = "" if operation == "add" else ", exponent %{customdata[1]}"
    assert figure.data[0].hovertemplate == (
        f"token %{{customdata[0]}}{exponent}<br>angle w x %{{customdata[2]:.1f}}°<br>"
        "(%{x:.5g}, %{y:.5g})<extra></extra>"
    )


def test_names_have_the_share_of_the_power(shipped):
    keys = gi.key_frequencies(shipped.snapshot()).frequencies
    figure = embedding_circles(shipped.snapshot(), keys)
    tokens = centred_embedding(shipped.snapshot())
    power = torch.fft.fft(tokens, dim=0).abs().square().sum(1)
    shares = [float((power[k] + power[113 - k]) / power.sum()) for k in keys]
    assert [note.text for note in figure.layout.annotations] == [
        f"k = {k} ({share:.1%})" for k, share in zip(keys, shares, strict=True)
    ]
    assert f"{sum(shares):.1%}" in figure.layout.title.text


def test_each_step_has_its_points(tiny_run):
    figure = plot_embedding_circles(tiny_run, frequencies=[2], step="all")
    assert [frame.name for frame in figure.frames] == [str(step) for step in tiny_run.steps]
    for frame in figure.frames:
        snapshot = tiny_run.snapshot(int(frame.name))
        own = plane_coordinates(centred_embedding(snapshot), 2)
        around = [0, 4, 1, 5, 2, 6, 3, 0]  # 1/2 = 4 mod 7
        assert np.array_equal(frame.data[0].x, own[around, 0].float().numpy())
        assert np.array_equal(frame.data[0].y, own[around, 1].float().numpy())


@pytest.mark.parametrize("factor", [0.0, math.nan])
def test_no_embedding_to_speak_of_has_the_same_traces(factor):
    architecture, weights, task = example("canonical")
    broken = weights | {"embed.W_E": weights["embed.W_E"] * factor}
    found = embedding_circles(from_weights(broken, architecture, task), [1, 2])
    sound = embedding_circles(from_weights(weights, architecture, task), [1, 2])
    assert [trace.type for trace in found.data] == [trace.type for trace in sound.data]
    assert found.layout.xaxis.range == (-1.08, 1.08)
    assert [note.text for note in found.layout.annotations] == [
        "k = 1 (no share)", "k = 2 (no share)",
    ]  # fmt: skip


def test_what_cannot_be_drawn_is_refused(tiny_run, tmp_path):
    with pytest.raises(gi.InputError, match="no key frequencies"):
        embedding_circles(tiny_run.snapshot(), [])
    recipe = gi.Recipe(model="mlp", p=7, widths=(16,), steps=0, train_fraction=0.5)
    two_hot = gi.train(recipe, tmp_path / "two_hot")
    for frequencies in ([1], None):
        with pytest.raises(gi.InputError, match=r"no table of embeddings.*plot_embedding_spectrum"):
            plot_embedding_circles(two_hot, frequencies=frequencies)
    learned = gi.train(recipe.replace(embedding="learned"), tmp_path / "learned")
    assert len(plot_embedding_circles(learned, frequencies=[1]).data[0].x) == 8
    architecture, weights, _ = example("canonical")
    random = from_weights(weights, architecture, ModularTask("random", P))
    with pytest.raises(gi.InputError, match="random"):
        plot_embedding_circles(random)
