"""The circles of the embedding: operand tokens on the plane of each key frequency."""

from collections.abc import Sequence
from typing import Unpack

import torch

from grokinterp.base.errors import InputError
from grokinterp.circuits.circles import centred_embedding, plane_coordinates
from grokinterp.figures._figure import AROUND_CIRCLE, COLOURS, Figure, at, place, small_multiples
from grokinterp.figures.heat_maps import BAR
from grokinterp.fourier._figures import Shown, draw_steps
from grokinterp.fourier._key_frequencies import need_key_frequencies
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import fourier_basis
from grokinterp.fourier.spectra import token_order
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot


def plot_embedding_circles(
    x: Subject, *, frequencies: Sequence[int] | None = None, **shown: Unpack[Shown]
) -> Figure:
    """Every operand token on the plane of each key frequency, a panel per frequency k.

    The whole embedding of a token, the mean token taken out, is projected on the plane that its
    cos and sin of w_k x span (`plane_coordinates`), so that noise shows too: before there is a
    circle the points are a cloud. The line joins tokens that are neighbours on the circle, x and
    x + 1/k. Percentages are shares of the embedding's power in frequency k: of the table, rows
    centred, in cos and sin of w_k x. Multiplication is taken in discrete logarithms, without the
    token 0. One range for all panels of a step. A circle does not say that the network uses it.

    `frequencies` are the key frequencies unless given, `shown` is `step`, `task`, `train_mask` as
    in `gi.ablate`. InputError without frequencies or a table of embeddings.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_embedding_circles(gi.load("mod31-small"))
    >>> [panel.text for panel in drawn.layout.annotations]
    ['k = 1 (31.1%)', 'k = 8 (21.9%)', 'k = 14 (36.7%)']
    """
    return draw_steps(x, embedding_circles, frequencies=frequencies, **shown)


def embedding_circles(snapshot: Snapshot, keys: Sequence[int]) -> Figure:
    """The same of one snapshot."""
    group = group_of(snapshot)
    if "embed.W_E" not in snapshot.named_weights:
        other = "plot_neurons draws what its neurons do."
        if "blocks.0.mlp.W_in" in snapshot.named_weights:
            other = "plot_embedding_spectrum draws the frequencies of what stands in its place."
        raise InputError(f"the model has no table of embeddings to draw circles of; {other}")
    need_key_frequencies(keys)
    tokens = centred_embedding(snapshot)
    n, power = len(tokens), float(tokens.square().sum())
    waves = fourier_basis(n) @ tokens
    powers = [float(waves[2 * k - 1 : 2 * k + 1].square().sum()) for k in keys]
    whole = _share(sum(powers), power)
    drawn = small_multiples(
        f"Circles of the embedding{at(snapshot.step)}<br>{whole} of its power in them",
        [f"k = {k} ({_share(own, power)})" for k, own in zip(keys, powers, strict=True)],
        "along cos",
        "along sin",
    )
    counted, exponent = "token x", ""
    if group.order != snapshot.modular_task.p:
        counted, exponent = "exponent of token x", ", exponent %{customdata[1]}"
    points = [plane_coordinates(tokens, k) for k in keys]
    for i, (k, at_k) in enumerate(zip(keys, points, strict=True)):
        around = torch.arange(n).mul(k).remainder(n).argsort(stable=True)
        around = torch.cat([around, around[:1]])
        turns = around * k % n / n
        drawn.add_scatter(
            x=at_k[around, 0].float().numpy(),
            y=at_k[around, 1].float().numpy(),
            mode="lines+markers",
            line={"color": COLOURS["other"], "width": 1},
            marker={
                "color": around.numpy(),
                "cmin": 0,
                "cmax": n,
                "colorscale": AROUND_CIRCLE,
                "size": 6,
                "showscale": i == 0,
                "colorbar": BAR | {"title": {"text": counted, "side": "top"}},
            },
            customdata=torch.stack(
                [token_order(snapshot)[around], around, 360 * turns], dim=1
            ).numpy(),
            hovertemplate=f"token %{{customdata[0]}}{exponent}<br>angle w x "
            "%{customdata[2]:.1f}°<br>(%{x:.5g}, %{y:.5g})<extra></extra>",
            name=f"k = {k}",
            meta={"columns": ["token", "place", "angle (degrees)"]},
            showlegend=False,
            **place(i),
        )
    reach = max(float(at_k.abs().nan_to_num(0.0, 0.0).max()) for at_k in points) or 1.0
    ends = [-1.08 * reach, 1.08 * reach]
    drawn.update_xaxes(nticks=4)  # on a phone there is room for no more
    return drawn.update_xaxes(range=ends).update_yaxes(range=ends)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "no share"
