"""Images of neurons: pixels against the model's cache, terms against the dense definition."""

import math

import numpy as np
import pytest

import grokinterp as gi
from grokinterp.circuits import neuron_clusters
from grokinterp.circuits._figures.neurons import chosen_neurons, neuron_fourier, neuron_images
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from grokinterp.viz import plot_neuron_fourier, plot_neurons
from tests import clock
from tests.labels import axis_titles
from tests.test_architectures import P, example


def named(figure):
    return [note.text for note in figure.layout.annotations]


@pytest.fixture(scope="module")
def clocks():
    """31 tokens; neurons 0-63 have frequency 2, the next 64 frequency 5 and twice the size."""
    weights = clock.clock_weights(31, (2, 5), 10.0)
    weights["blocks.0.mlp.W_in"][:, 64:] *= 2
    architecture = clock.clock_architecture(31, 2)
    return from_weights(weights, architecture, ModularTask("add", 31))


@pytest.mark.parametrize(("variant", "layer"), [("two layers", 0), ("two layers", 1)])
def test_a_pixel_is_the_neurons_activation_on_its_pair(variant, layer):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    _, cache = snapshot.hooked().run_with_cache(task.tokens)
    own = cache[f"blocks.{layer}.mlp.hook_post"][:, -1]
    figure = plot_neurons(snapshot, neurons=[11, 3], layer=layer)
    for trace, neuron in zip(figure.data, (11, 3), strict=True):
        assert trace.z.dtype == np.float32
        for a, b in ((0, 0), (2, 5), (6, 1)):
            assert trace.z[a, b] == pytest.approx(float(own[a * P + b, neuron]), rel=1e-6)
        name, *told = trace.hovertemplate.split("<br>")
        assert name.startswith(f"neuron {neuron} (")
        assert told == ["a = %{y}, b = %{x}", "activation %{z:.5g}<extra></extra>"]
    assert figure.layout.title.text == f"Neurons of layer {layer}"
    assert axis_titles(figure) == ({"operand b"}, {"operand a"})
    assert figure.data[0].colorbar.title.text == "activation, scale of this step"


def test_the_last_layer_is_the_default():
    architecture, weights, task = example("two layers")
    snapshot = from_weights(weights, architecture, task)
    last = plot_neurons(snapshot, neurons=[3], layer=1)
    assert np.array_equal(plot_neurons(snapshot, neurons=[3]).data[0].z, last.data[0].z)


def dense_waves(n):
    """Constant, cos 1, sin 1, ... on n points, with their names."""
    x = np.arange(n)
    waves, names = [np.ones(n)], ["const"]
    for k in range(1, n // 2 + 1):
        waves.append(np.cos(2 * np.pi * k * x / n))
        names.append(f"cos {k}")
        if 2 * k != n:
            waves.append(np.sin(2 * np.pi * k * x / n))
            names.append(f"sin {k}")
    return np.stack([wave / np.linalg.norm(wave) for wave in waves]), names


@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_terms_are_those_of_the_definition(operation):
    """Multiplication mod 7 is taken in powers of its generator 3, without the token 0."""
    architecture, weights, _ = example("canonical")
    task = ModularTask(operation, P)
    snapshot = from_weights(weights, architecture, task)
    order = [1, 3, 2, 6, 4, 5] if operation == "multiply" else list(range(P))
    assert operation == "add" or task.answer_group.tokens.tolist() == order
    neurons = snapshot.mlp_post.var(dim=0).argsort(descending=True)[:2].tolist()
    figure = plot_neuron_fourier(snapshot, neurons=neurons)
    assert figure.layout.title.text == "Fourier terms of neurons"
    assert axis_titles(figure) == ({"frequency of b"}, {"frequency of a"})
    assert figure.data[0].colorbar.title.text == "coefficient, scale of this step"
    waves, names = dense_waves(len(order))
    for i, neuron in enumerate(neurons):
        grid = snapshot.mlp_post[:, neuron].view(P, P).numpy()[np.ix_(order, order)]
        terms = waves @ (grid - grid.mean()) @ waves.T
        drawn = figure.data[i]
        assert np.allclose(drawn.z, terms, atol=1e-6 * np.abs(terms).max())
        assert drawn.hovertemplate.split("<br>")[1] == "%{y} · %{x}: %{z:.5g}<extra></extra>"
        assert list(drawn.y) == ["const", *(f"{name} a" for name in names[1:])]
        assert list(drawn.x) == ["const", *(f"{name} b" for name in names[1:])]
        dots = figure.data[2 + i]
        assert dots.type == "scatter"
        assert dots.hovertemplate.split("<br>")[1] == (
            "%{y} · %{x}: %{marker.color:.5g}<extra></extra>"
        )
        largest = sorted(np.abs(drawn.z).ravel())[-8:]
        assert np.abs(dots.marker.color).tolist() == pytest.approx(largest)
        for x, y, value in zip(dots.x, dots.y, dots.marker.color, strict=True):
            assert drawn.z[list(drawn.y).index(y), list(drawn.x).index(x)] == value


def test_ticks_are_named_by_their_frequency(clocks):
    figure = plot_neuron_fourier(clocks, neurons=[0])
    axis = figure.layout.yaxis
    numbers = [0, *(int(wave.split()[1]) for wave in axis.tickvals[1:])]
    assert list(axis.ticktext) == numbers == list(range(0, 16, 4))
    assert axis.tickvals[:2] == ("const", "cos 4 a")


def test_chosen_are_the_largest_of_each_key_cluster_strongest_first(clocks):
    table = neuron_clusters(clocks, frequencies=[2, 5]).table()
    best = table.loc[table.groupby("cluster").variance_share.idxmax()].set_index("cluster").neuron
    assert chosen_neurons(clocks, (2, 5)) == [best[5], best[2]]
    assert chosen_neurons(clocks, (2, 5), most=1) == [best[5]]
    assert chosen_neurons(clocks, (2, 3)) == [best[2]]
    largest = table.sort_values("variance_share", ascending=False, kind="stable").neuron
    assert chosen_neurons(clocks, ()) == largest[:4].tolist()
    assert chosen_neurons(clocks, (3,)) == largest[:4].tolist()
    figure = plot_neurons(clocks, frequencies=[2, 5])
    assert named(figure) == [f"neuron {best[5]} (k = 5)", f"neuron {best[2]} (k = 2)"]


def test_neurons_stay_those_of_the_last_checkpoint(shipped):
    keys = gi.key_frequencies(shipped.snapshot()).frequencies
    chosen = chosen_neurons(shipped.snapshot(), keys)
    assert len(chosen) == len(keys)
    figure = plot_neurons(shipped, step=[0, 12000])
    for frame in figure.frames:
        snapshot = shipped.snapshot(int(frame.name))
        for trace, neuron in zip(frame.data, chosen, strict=True):
            own = snapshot.mlp_post[:, neuron].view(113, 113)
            assert np.array_equal(trace.z, own.numpy())
        rows = neuron_clusters(snapshot, frequencies=()).table().loc[chosen]
        words = [
            "dead" if dead else "mixed" if k == -1 else f"k = {k}"
            for k, dead in zip(rows.cluster, rows.dead, strict=True)
        ]
        assert [note.text for note in frame.layout.annotations] == [
            f"neuron {i} ({word})" for i, word in zip(chosen, words, strict=True)
        ]


def test_mlps_have_neurons_too(tmp_path):
    recipe = gi.Recipe(model="mlp", p=7, widths=(16,), steps=0, train_fraction=0.5)
    snapshot = gi.train(recipe, tmp_path / "run").snapshot()
    figure = plot_neurons(snapshot, neurons=[2])
    assert np.array_equal(figure.data[0].z, snapshot.mlp_post[:, 2].view(7, 7).numpy())
    assert plot_neuron_fourier(snapshot).data


@pytest.mark.parametrize("factor", [0.0, math.nan])
def test_dead_and_broken_neurons_have_the_same_traces(factor):
    architecture, weights, task = example("canonical")
    sound = from_weights(weights, architecture, task)
    name = "blocks.0.mlp.W_in"
    found = from_weights(weights | {name: weights[name] * factor}, architecture, task)
    for draw in (neuron_images, neuron_fourier):
        types = [[trace.type for trace in draw(x, [0, 1]).data] for x in (sound, found)]
        assert types[0] == types[1]
    dead = " (dead)" if factor == 0 else ""
    assert named(neuron_images(found, [0, 1])) == [f"neuron 0{dead}", f"neuron 1{dead}"]
    assert all(len(trace.x) == 0 for trace in neuron_fourier(found, [0, 1]).data[2:])
    assert chosen_neurons(found, (1,), most=2) == [0, 1]


def test_what_cannot_be_drawn_is_refused(tiny_run):
    for neurons in ([], [32], [-1], ["a"], 3):
        with pytest.raises(gi.InputError, match="neuron"):
            plot_neurons(tiny_run, neurons=neurons)
    for draw in (plot_neurons, plot_neuron_fourier):
        for layer in (1, -1, True):
            with pytest.raises(gi.InputError, match="is not a whole number from 0 to 0"):
                draw(tiny_run, layer=layer)
        with pytest.raises(gi.InputError, match="has no activation 'a'"):
            draw(tiny_run, layer="a")


def test_a_layer_may_be_numpys(tiny_run):
    post = tiny_run.snapshot().mlp_post[:, 3].view(7, 7).numpy()
    assert np.array_equal(plot_neurons(tiny_run, neurons=[3], layer=np.int64(0)).data[0].z, post)
