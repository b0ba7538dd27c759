import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.fourier import embedding_spectrum, fourier_basis, neuron_logit_map
from grokinterp.fourier._figures import SHARES
from grokinterp.fourier._key_frequencies import RULES
from grokinterp.fourier.localization import fourier_heat_map
from grokinterp.viz import (
    plot_embedding_heat_map,
    plot_embedding_spectrum,
    plot_fourier_heat_map,
    plot_key_frequencies,
    plot_neuron_logit_spectrum,
)
from tests.labels import axis_titles

CYCLES = {"frequency k (cycles around the group)"}


def bars(figure):
    key, other = figure.data
    assert (key.name, other.name) == ("key", "other")
    heights = dict(zip([*key.x, *other.x], [*key.y, *other.y], strict=True))
    return tuple(key.x), [heights[k] for k in range(1, len(heights) + 1)]


def test_every_frequency_has_its_bar(shipped):
    found = gi.key_frequencies(shipped.snapshot())
    figure = found.plot()
    key, other = figure.data
    assert figure.layout.title.text == "Key frequencies, step 12000<br>logits rule: 9, 18, 53, 55"
    assert axis_titles(figure) == (CYCLES, {"share of the logits' variance"})
    assert key.hovertemplate == "k = %{x}<br>share of the logits' variance %{y:.5g}"
    assert tuple(key.x) == found.frequencies
    assert sorted([*key.x, *other.x]) == list(range(1, 57))
    assert dict(zip(key.x, key.y, strict=True)) == {k: found.shares[k] for k in found}


def test_two_traces_stay_where_nothing_is_key(shipped):
    found = gi.key_frequencies(shipped.snapshot(0))
    assert found.frequencies == ()
    keys, heights = bars(plot_key_frequencies(found))
    assert keys == ()
    assert heights == list(found.shares.values())


def test_a_task_without_frequencies_has_nothing_to_draw(tiny, tmp_path):
    run = gi.train(tiny.replace(operation="random", steps=0), tmp_path / "run")
    with pytest.raises(gi.InputError, match="no frequencies to draw"):
        gi.key_frequencies(run).plot()


@pytest.mark.parametrize("step", [0, -1])
def test_the_norms_are_those_of_the_dense_transform(shipped, step):
    """sqrt of the squares of a cos row and a sin row of the basis times the matrix."""
    snapshot = shipped.snapshot(step)
    basis = fourier_basis(113)
    classes = neuron_logit_map(snapshot).double().T
    names = iter([("the embedding", "W_E"), ("W_out W_U", "W_out W_U")])
    tokens = snapshot.weights["embed.W_E"][:113].double()
    for plot, matrix in ((plot_embedding_spectrum, tokens), (plot_neuron_logit_spectrum, classes)):
        figure = plot(shipped, step=step)
        keys, heights = bars(figure)
        assert keys == (9, 18, 53, 55)
        pairs = (basis @ matrix)[1:].view(56, -1)
        assert heights == pytest.approx(pairs.norm(dim=1).tolist(), rel=1e-9)
        title, name = next(names)
        assert figure.layout.title.text == f"Frequencies of {title}, step {snapshot.step}"
        assert axis_titles(figure) == (CYCLES, {f"norm in {name}"})
        assert figure.data[0].hovertemplate == f"k = %{{x}}<br>norm in {name} %{{y:.5g}}"


def test_the_frames_of_a_moving_spectrum_are_its_steps(shipped):
    steps = [0, 2000, 12000]
    moving = plot_embedding_spectrum(shipped, step=steps)
    assert [frame.name for frame in moving.frames] == ["0", "2000", "12000"]
    for step, frame in zip(steps, moving.frames, strict=True):
        still = plot_embedding_spectrum(shipped, step=step)
        norms = embedding_spectrum(shipped.snapshot(step)).sqrt()[1:].tolist()
        assert bars(still)[1] == norms
        for drawn, own in zip(frame.data, still.data, strict=True):
            assert drawn.y == own.y


def test_the_embedding_heat_map_is_the_dense_transform(shipped):
    figure = plot_embedding_heat_map(shipped, step=2000)
    (drawn,) = figure.data
    assert figure.layout.title.text == "Embedding in Fourier basis, step 2000"
    assert axis_titles(figure) == ({"dimension of the embedding"}, {"wave over the tokens"})
    assert drawn.hovertemplate == "%{y}, dimension %{x}<br>component %{z:.5g}<extra></extra>"
    assert list(drawn.x) == list(range(128))
    tokens = shipped.snapshot(2000).weights["embed.W_E"][:113].double()
    expected = (fourier_basis(113) @ tokens).float().numpy()
    assert drawn.z.dtype == np.float32
    assert np.allclose(drawn.z, expected, rtol=0, atol=1e-6)
    assert drawn.zmax == -drawn.zmin == pytest.approx(np.abs(expected).max())
    assert list(drawn.y)[:4] == ["const", "cos 1", "sin 1", "cos 2"]
    assert list(drawn.y)[-1] == "sin 56"


def test_the_last_wave_of_an_even_number_of_tokens_has_no_sine(tiny, tmp_path):
    run = gi.train(tiny.replace(p=6, steps=0), tmp_path / "run")
    (drawn,) = plot_embedding_heat_map(run).data
    assert list(drawn.y) == ["const", "cos 1", "sin 1", "cos 2", "sin 2", "cos 3"]
    assert drawn.z.shape == (6, 16)


def test_the_fourier_heat_map_keeps_the_order_of_the_table(tiny_run):
    shares = fourier_heat_map(tiny_run.snapshot())
    figure = plot_fourier_heat_map(shares)
    (drawn,) = figure.data
    assert (drawn.z == shares.to_numpy()).all()
    assert list(drawn.y) == shares.index.tolist()
    assert list(drawn.customdata[0]) == shares.columns.tolist()
    assert figure.layout.title.text == "Frequencies of input weights, step 60"
    assert axis_titles(figure) == (
        {"neuron, by its dominant frequency"}, {"frequency k (0 is the constant)"},
    )  # fmt: skip
    assert drawn.hovertemplate == (
        "neuron %{customdata}<br>k = %{y}<br>share %{z:.4f}<extra></extra>"
    )
    assert drawn.colorbar.title.text == "share of<br>power"
    with pytest.raises(gi.InputError, match="no Fourier heat map"):
        plot_fourier_heat_map(pd.DataFrame({"a": [1.0]}))


def test_a_two_hot_mlp_is_drawn_as_what_it_is(tmp_path):
    recipe = gi.Recipe(model="mlp", p=7, widths=(16,), steps=0, train_fraction=0.5)
    run = gi.train(recipe, tmp_path / "run")
    weights = run.snapshot().weights
    w_in = weights["blocks.0.mlp.W_in"].double()
    figure = plot_embedding_heat_map(run)
    (drawn,) = figure.data
    for column, (neuron, first, name) in {3: (3, 0, "a"), 16 + 5: (5, 7, "b")}.items():
        own = fourier_basis(7) @ w_in[first : first + 7, neuron]
        assert np.allclose(drawn.z[:, column], own, rtol=0, atol=1e-6)
        assert drawn.x[column] == f"{neuron} ({name})"
    assert figure.layout.title.text == "W_in in Fourier basis, step 0"
    assert axis_titles(figure)[0] == {"neuron, from operand a, then from b"}
    assert drawn.hovertemplate.startswith("%{y}, neuron %{x}<br>")
    spectrum = plot_embedding_spectrum(run, frequencies=[1])
    assert spectrum.layout.title.text == "Frequencies of W_in, step 0"
    assert axis_titles(spectrum)[1] == {"norm in W_in"}
    classes = plot_neuron_logit_spectrum(run, frequencies=[1])
    assert axis_titles(classes)[1] == {"norm in W_U"}
    own = (fourier_basis(7) @ weights["unembed.W_U"].double().T)[1:3].norm()
    assert classes.data[0].y == pytest.approx([float(own)])
    learned = gi.train(recipe.replace(embedding="learned"), tmp_path / "learned")
    assert axis_titles(plot_embedding_spectrum(learned))[1] == {"norm in W_E"}


def test_every_rule_says_of_what_its_shares_are():
    assert set(SHARES) == set(RULES)


def test_key_frequencies_can_be_given(tiny_run):
    assert bars(plot_embedding_spectrum(tiny_run, frequencies=(2,)))[0] == (2,)
