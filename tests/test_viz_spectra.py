import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.fourier import embedding_spectrum, fourier_basis, neuron_logit_map
from grokinterp.fourier.localization import fourier_heat_map
from grokinterp.viz import (
    plot_embedding_heat_map,
    plot_embedding_spectrum,
    plot_fourier_heat_map,
    plot_key_frequencies,
    plot_neuron_logit_spectrum,
)


def bars(figure):
    key, other = figure.data
    assert (key.name, other.name) == ("key", "other")
    heights = dict(zip([*key.x, *other.x], [*key.y, *other.y], strict=True))
    return tuple(key.x), [heights[k] for k in range(1, len(heights) + 1)]


def test_every_frequency_has_its_bar(shipped):
    found = gi.key_frequencies(shipped.snapshot())
    key, other = found.plot().data
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
    tokens = snapshot.weights["embed.W_E"][:113].double()
    for plot, matrix in ((plot_embedding_spectrum, tokens), (plot_neuron_logit_spectrum, classes)):
        figure = plot(shipped, step=step)
        keys, heights = bars(figure)
        assert keys == (9, 18, 53, 55)
        pairs = (basis @ matrix)[1:].view(56, -1)
        assert heights == pytest.approx(pairs.norm(dim=1).tolist(), rel=1e-9)
        assert f"step {snapshot.step}" in figure.layout.title.text


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
    (drawn,) = plot_embedding_heat_map(shipped, step=2000).data
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
    assert "input" in figure.layout.title.text
    with pytest.raises(gi.InputError, match="no Fourier heat map"):
        plot_fourier_heat_map(pd.DataFrame({"a": [1.0]}))


def test_key_frequencies_can_be_given(tiny_run):
    assert bars(plot_embedding_spectrum(tiny_run, frequencies=(2,)))[0] == (2,)
