import math
from dataclasses import replace

import pytest

import grokinterp as gi
from grokinterp.circuits import faithfulness
from grokinterp.circuits._figures.ablation import VERDICTS
from grokinterp.circuits.ablation import Ablation
from grokinterp.circuits.hooks import fourier, heads, neurons
from grokinterp.models.blocks import LOGITS
from grokinterp.viz import plot_ablation


@pytest.fixture(scope="module")
def found(shipped):
    k9 = fourier(LOGITS, shipped.task, [9])
    return gi.ablate(
        shipped, [heads(0, 1), neurons(0, [3]), k9, *[heads(0, range(4))]], placebos=4,
    )  # fmt: skip


def rows_of(figure):
    """Name: (ratio, verdict, hover) of every bar."""
    names = [text.replace("<br>", " ").replace("\u00a0", " ") for text in
             figure.layout.yaxis.ticktext]  # fmt: skip
    return {
        names[int(y)]: (bar.base + x, bar.name, text)
        for bar in figure.data[: len(VERDICTS)]
        for x, y, text in zip(bar.x, bar.y, bar.hovertext, strict=True)
    }


def test_every_row_is_a_bar_with_the_numbers_of_the_table(found):
    figure = found.plot()
    drawn = rows_of(figure)
    table = found.table().set_index("ablation")
    assert list(table.index) == [
        text.replace("<br>", " ").replace("\u00a0", " ") for text in figure.layout.yaxis.ticktext
    ]  # fmt: skip
    for name, row in table.iterrows():
        ratio, verdict, hover = drawn[name]
        assert ratio == pytest.approx(row.ratio, rel=1e-12)
        assert verdict == row.verdict
        for told in (f"ratio {row.ratio:.5g}", f"loss {row.loss_all:.5g}", f"{row.acc_all:.4%}"):
            assert told in hover
        if row.n_placebos:
            assert f"median {row.placebo_median:.5g}" in hover
            assert f"{row.placebo_min:.5g} to {row.placebo_max:.5g}" in hover
        else:
            assert row.no_placebo in hover
    assert figure.layout.xaxis.type == "log"
    assert f"{found.rows[0].whole.loss_all:.4g} nats" in figure.layout.title.text


def test_placebos_stand_below_their_row_and_harmonics_are_hollow(found):
    figure = found.plot()
    plain, harmonic = figure.data[len(VERDICTS) : len(VERDICTS) + 2]
    table, names = found.placebos(), [row.name for row in found]
    for dots, chosen in ((plain, table[~table.harmonic]), (harmonic, table[table.harmonic])):
        assert list(dots.x) == chosen.ratio.tolist()
        assert [names[math.floor(y)] for y in dots.y] == chosen.ablation.tolist()
    assert len(harmonic.x) > 0
    assert (plain.marker.symbol, harmonic.marker.symbol) == ("circle", "circle-open")


def scored(row, loss):
    return replace(row, score=replace(row.score, loss_all=loss))


def test_ratios_that_a_log_axis_does_not_have_stand_at_its_edge(found):
    zero, infinite, unknown, plain = (
        scored(row, loss) for row, loss in zip(found, (0.0, math.inf, math.nan, 1.0), strict=True)
    )
    figure = plot_ablation(replace(found, rows=(zero, infinite, unknown, plain)))
    assert len(rows_of(figure)) == 1
    edge = figure.data[-1]
    assert list(edge.y) == [0, 1, 2]
    low, high = figure.layout.xaxis.range
    assert low < math.log10(edge.x[0]) < 0 < math.log10(edge.x[1]) < high
    assert edge.x[1] == edge.x[2]
    for text, value in zip(edge.hovertext, ("0", "inf", "nan"), strict=True):
        assert f"{value} is off the axis" in text
    assert edge.showlegend
    assert not found.plot().data[-1].showlegend


def test_steps_keep_the_height_of_a_row_and_the_kinds_of_traces(shipped):
    last = gi.ablate(shipped, [heads(0, 0), heads(0, 1)], placebos=2)
    first = gi.ablate(shipped, [heads(0, 1)], step=0, placebos=2)
    both = Ablation(
        rows=first.rows + last.rows, frequencies=last.frequencies, notes=(), n_placebos=2, seed=0
    )
    moving = both.plot()
    assert [frame.name for frame in moving.frames] == ["0", "12000"]
    names = [row.name for row in last]
    assert list(moving.layout.yaxis.ticktext) == [n.replace(" = ", "\u00a0=\u00a0") for n in names]
    early, late = (
        {y: 1 + x for trace, own in zip(frame.traces, frame.data, strict=True)
         if trace < len(VERDICTS) for x, y in zip(own.x, own.y, strict=True)}
        for frame in moving.frames
    )  # fmt: skip
    assert early == pytest.approx({1: first[names[1]].ratio})
    assert late == pytest.approx({0: last[names[0]].ratio, 1: last[names[1]].ratio})


def test_rows_of_one_name_are_drawn_apart(found):
    twice = replace(found, rows=(found.rows[0], found.rows[0]))
    heights = [y for bar in plot_ablation(twice).data[: len(VERDICTS)] for y in bar.y]
    assert heights == [0, 1]


def test_nothing_ablated_is_nothing_to_draw(found):
    with pytest.raises(gi.InputError, match="nothing was ablated"):
        plot_ablation(replace(found, rows=()))


@pytest.mark.slow
def test_faithfulness_draws_the_losses_of_its_table(shipped):
    found = faithfulness(shipped, placebos=0)
    whole, parts, edge = found.plot().data
    table = found.table()
    assert [*whole.x, *parts.x] == table.loss_all.tolist()
    assert [*whole.y, *parts.y] == list(range(len(table)))
    for text, (_, row) in zip([*whole.hovertext, *parts.hovertext], table.iterrows(), strict=True):
        assert f"<b>{row.what}</b>" in text
        assert f"loss {row.loss_all:.5g} nats" in text
    assert not edge.showlegend
    title = found.plot().layout.title.text
    missing = 1 - found.recovered
    assert 0 < missing < 5e-5  # "1" would hide it
    assert f"recovered 1 - {missing:.2g}, lost {found.lost:.4g}" in title
    assert [whole.name, parts.name] == [
        "with and without the circuit",
        "circuit alone, less a part",
    ]
    whole_loss, nothing = table.loss_all.iloc[0], found.nothing.score.loss_all
    close = scored(found.alone, whole_loss + 0.025 * (nothing - whole_loss))
    nearly = replace(found, alone=close).plot().layout.title.text
    assert "recovered 0.975, lost" in nearly
    lines = [shape.x0 for shape in found.plot().layout.shapes]
    assert lines == table.loss_all[:2].tolist()
    named = [shape.name for shape in found.plot().layout.shapes if shape.showlegend]
    assert named == ["loss of the model", f"loss of {table.what.iloc[1]}"]
    perfect = replace(found, alone=scored(found.alone, 0.0))
    _, _, edge = perfect.plot().data
    assert list(edge.y) == [1]
