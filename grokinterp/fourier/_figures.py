"""Fourier spectra: key frequencies, the embedding, the neuron-logit map, each neuron's weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import AROUND_ZERO, COLOURS, FROM_ZERO, Figure, at, checked, figure
from grokinterp.figures.slider import over_training
from grokinterp.fourier import spectra
from grokinterp.fourier._key_frequencies import KeyFrequencies, Keys, key_frequencies, subject_of
from grokinterp.fourier.localization import fourier_heat_map
from grokinterp.reading._load import Subject, steps_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

FREQUENCY = "frequency k (cycles around the group)"
SHARES = {  # what the shares of each of `fourier.RULES` are of
    "logits": "share of the logits' variance",
    "embedding": "share of the embedding's power",
    "embedding_demo": "share of the embedding's power",
    "neuron_logit": "share of the neuron-logit map's power",
    "neurons": "share of the neurons that are not dead",
}


class Shown(TypedDict, total=False):
    """Which checkpoints of a run to draw, and of a model what it learned, as in `gi.ablate`.

    Several steps, or "all", make a slider.
    """

    step: int | Sequence[int] | Literal["all"]
    task: Task | None
    train_mask: Bool[Tensor, " n_inputs"] | None


class ShownWithKeys(Shown, total=False):
    """And the frequencies to show as key, those of the logits unless given."""

    frequencies: Sequence[int] | None


def draw_steps(
    x: Subject, draw: Callable[[Snapshot, Keys], Figure], **shown: Unpack[ShownWithKeys]
) -> Figure:
    """What `draw` makes of one step and its key frequencies, or of several with a slider."""
    step, about = step_and_rest(shown)
    figures: dict[int, Figure] = {}
    for one in steps_of(x, step):
        snapshot, keys = subject_of(x, step=one, **about)
        figures[-1 if snapshot.step is None else snapshot.step] = draw(snapshot, keys)
    return over_training(figures)


def step_and_rest(shown: ShownWithKeys) -> tuple[Any, dict[str, Any]]:
    """The step, and the arguments of `subject_of`."""
    rest: dict[str, Any] = dict(shown)
    return rest.pop("step", -1), rest


@draws(KeyFrequencies)
@found_by(key_frequencies, KeyFrequencies)
def plot_key_frequencies(found: KeyFrequencies) -> Figure:
    """The share of every frequency on a log axis, the key ones in colour.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_key_frequencies(gi.load("mod31-small"), rule="embedding")
    >>> drawn.layout.title.text
    'Key frequencies, step 10000<br>embedding rule: 1, 8, 14'
    >>> drawn.data[0].name, drawn.data[0].x
    ('key', (1, 8, 14))
    """
    checked(found, KeyFrequencies, "gi.key_frequencies")
    if found.frequencies is None:
        raise InputError(f"there are no frequencies to draw: {found.reason}.")
    listed = ", ".join(map(str, found)) or f"none ({str(found.reason).partition(':')[0]})"
    title = f"Key frequencies{at(found.step)}<br>{found.rule} rule: {listed}"
    drawn = figure(title, FREQUENCY, SHARES[found.rule])
    return _bars(drawn.update_yaxes(type="log"), found.shares, found)


def plot_embedding_spectrum(x: Subject, **shown: Unpack[ShownWithKeys]) -> Figure:
    """Norm of each frequency of the embedding, cos and sin together, the key ones in colour.

    That of frequency k is sqrt of the sum of squares of its two rows of W_E, transformed over the
    operand tokens (`fourier.embedding_spectrum`); the constant is left out. Norms have the unit of
    W_E. An MLP with two-hot input has no W_E: those are the rows of its W_in. Where each operand
    has rows or a table of its own, they are both operands' together. `shown` is `step` (one,
    several, or "all" of a run: then with a slider), `frequencies`, and of a model `task` and
    `train_mask`, as in `gi.ablate`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> drawn = gi.viz.plot_embedding_spectrum(run)
    >>> drawn.layout.title.text, drawn.data[0].x
    ('Frequencies of the embedding, step 10000', (1, 8, 14))
    >>> len(gi.viz.plot_embedding_spectrum(run, step=[0, 2000, -1]).frames)
    3
    """
    return draw_steps(x, embedding_bars, **shown)


def embedding_bars(snapshot: Snapshot, keys: tuple[int, ...]) -> Figure:
    """The same of one snapshot."""
    matrix = spectra.operand_tables(snapshot).name
    name = "the embedding" if matrix == "W_E" else matrix
    return _norms(snapshot, keys, spectra.embedding_spectrum(snapshot), name, matrix)


def plot_neuron_logit_spectrum(x: Subject, **shown: Unpack[ShownWithKeys]) -> Figure:
    """Norm of each frequency of the neuron-logit map W_out W_U over the answer classes.

    Of an MLP it is W_U alone, which reads its neurons.
    `shown` is that of `plot_embedding_spectrum` (`fourier.neuron_logit_spectrum`).

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_neuron_logit_spectrum(gi.load("mod31-small"), step=2000)
    >>> drawn.layout.title.text, drawn.layout.yaxis.title.text
    ('Frequencies of W_out W_U, step 2000', 'norm in W_out W_U')
    """
    return draw_steps(x, neuron_logit_bars, **shown)


def neuron_logit_bars(snapshot: Snapshot, keys: tuple[int, ...]) -> Figure:
    """The same of one snapshot."""
    matrix = "W_out W_U" if snapshot.positions else "W_U"
    return _norms(snapshot, keys, spectra.neuron_logit_spectrum(snapshot), matrix, matrix)


def plot_embedding_heat_map(x: Subject, **shown: Unpack[Shown]) -> Figure:
    """The embedding in the Fourier basis over the tokens: a row per wave, a column per dimension.

    As figure 3 of Nanda et al. 2023 (arXiv 2301.05217): rows const, cos 1, sin 1, cos 2, ... An
    MLP with two-hot input has one column per neuron of W_in for operand a, then for operand b.
    `shown` is that of `plot_embedding_spectrum`.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_embedding_heat_map(gi.load("mod31-small"))
    >>> drawn.layout.title.text, drawn.data[0].y[:3], drawn.data[0].z.shape
    ('Embedding in Fourier basis, step 10000', ('const', 'cos 1', 'sin 1'), (31, 32))
    """
    return draw_steps(x, lambda snapshot, _: embedding_heat_map(snapshot), **shown)


def embedding_heat_map(snapshot: Snapshot) -> Figure:
    """The same of one snapshot."""
    components = spectra.embedding_components(snapshot)
    n, largest = len(components), float(components.abs().max())
    columns: list[Any] = list(range(components.shape[1]))
    name, x, column = "Embedding", "dimension of the embedding", "dimension %{x}"
    read = spectra.operand_tables(snapshot)
    if read.name == "W_in":
        name, x, column = "W_in", "neuron", "neuron %{x}"
    if len(read.tables) == 2:
        columns = [f"{i} ({one})" for one in "ab" for i in columns[: len(columns) // 2]]
        x += ", from operand a, then from b"
    drawn = figure(f"{name} in Fourier basis{at(snapshot.step)}", x, "wave over the tokens")
    waves = ["const", *(f"{wave} {k}" for k in range(1, n // 2 + 1) for wave in ("cos", "sin"))]
    drawn.update_xaxes(nticks=6, tickangle=0)
    drawn.update_yaxes(autorange="reversed", nticks=12)
    drawn.update_layout(height=560)
    return drawn.add_heatmap(
        z=components.float().numpy(),
        x=columns,
        y=waves[:n],  # of an even number of tokens the last wave has no sine
        zmin=-largest,
        zmax=largest,
        colorscale=AROUND_ZERO,
        colorbar={"title": "component"},
        hovertemplate=f"%{{y}}, {column}<br>component %{{z:.5g}}<extra></extra>",
    )


@found_by(fourier_heat_map, pd.DataFrame)
def plot_fourier_heat_map(shares: pd.DataFrame) -> Figure:
    """The shares that `fourier_heat_map` found: one row per frequency, one column per neuron.

    Neurons stand in the order of the table, by their dominant frequency; a column is empty where a
    neuron has no weights.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> drawn = gi.viz.plot_fourier_heat_map(run, side="output")
    >>> drawn.layout.title.text, drawn.data[0].z.shape
    ('Frequencies of output weights, step 10000', (16, 160))
    """
    checked(shares, pd.DataFrame, "fourier.fourier_heat_map")
    if shares.index.name != "frequency" or shares.columns.name != "neuron":
        raise InputError("this is no Fourier heat map; give what fourier_heat_map found.")
    title = f"Frequencies of {shares.attrs.get('side', '')} weights{at(shares.attrs.get('step'))}"
    drawn = figure(title, "neuron, by its dominant frequency", "frequency k (0 is the constant)")
    drawn.update_layout(hovermode="closest")
    return drawn.add_heatmap(
        z=shares.to_numpy(),
        x=list(range(shares.shape[1])),
        y=shares.index.tolist(),
        customdata=[shares.columns.tolist()] * len(shares),
        hovertemplate="neuron %{customdata}<br>k = %{y}<br>share %{z:.4f}<extra></extra>",
        colorscale=FROM_ZERO,
        zmin=0,
        zmax=1,
        colorbar={"title": "share of<br>power"},
    )


def _norms(
    snapshot: Snapshot, keys: tuple[int, ...], power: Tensor, name: str, matrix: str
) -> Figure:
    """A bar per frequency of a matrix, the constant left out."""
    drawn = figure(f"Frequencies of {name}{at(snapshot.step)}", FREQUENCY, f"norm in {matrix}")
    return _bars(drawn, dict(enumerate(power.sqrt().tolist()[1:], start=1)), keys)


def _bars(drawn: Figure, values: Mapping[int, float], keys: Iterable[int]) -> Figure:
    """A bar per frequency: two traces, key and other, whether there is any of them or not."""
    key = set(keys)
    for name, chosen in (("key", True), ("other", False)):
        bars = {k: value for k, value in values.items() if (k in key) is chosen}
        drawn.add_bar(
            x=list(bars),
            y=list(bars.values()),
            name=name,
            marker={"color": COLOURS[name], "line": {"width": 0}},
            width=0.8,
            hovertemplate=f"k = %{{x}}<br>{drawn.layout.yaxis.title.text} %{{y:.5g}}",
        )
    return drawn.update_layout(barmode="overlay", showlegend=True)
