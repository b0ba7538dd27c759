"""Figures of a sweep, against the numbers of its table."""

import json
import math
import re
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from grokinterp.base.errors import InputError
from grokinterp.figures._figure import COLOURS, DASHES, LABEL_COLOURS, SERIES, faded, ink_on
from grokinterp.sweeps._figures.phase_diagram import OTHER_LABELS
from grokinterp.sweeps.statistics import median_interval, power_law
from grokinterp.viz import plot_phase_diagram, plot_scaling, sweep_page
from tests.labels import axis_titles
from tests.test_viz_figure import BLINDNESS, lab

FRACTIONS, DECAYS, SEEDS = (0.3, 0.5), (0.1, 1.0, 10.0), (0, 1, 2)
HOSTILE = '<script>alert("x")</script>'
EXAMPLES = "examples/encodings"


def grok_step(fraction, decay, seed):
    """None at fraction 0.3 and the least decay, and for seed 2 at fraction 0.3 and decay 1."""
    if fraction == 0.3 and (decay == 0.1 or (decay == 1.0 and seed == 2)):
        return None
    return round(2000 / fraction / decay * (1 + 0.3 * seed * (seed - 1.5)))


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            {
                "run": f"train_fraction={f:g},weight_decay={w:g},seed={s}",
                "weight_decay": w, "train_fraction": f, "seed": s, "data_seed": s,
                "label": "memorized" if grok_step(f, w, s) is None else "grokked",
                "t_train": 150, "grok_step": grok_step(f, w, s),
                "test_loss": 0.5 * w - f + 0.01 * s,
                "note": "", "fingerprint": "0",
            }
            for w, f, s in product(DECAYS, FRACTIONS, SEEDS)
        ]
    )  # fmt: skip


def cells(figure):
    """What stands in every cell: (x, y, panel) to its height, text and hover."""
    found = {}
    for trace in figure.data:
        if trace.type == "heatmap":
            axis = "xaxis" + (trace.xaxis or "x")[1:], "yaxis" + (trace.yaxis or "y")[1:]
            columns, rows = (figure.layout[name].ticktext for name in axis)
            for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
                if trace.z[i][j] is not None:
                    place = (column, row, axis[0])
                    assert place not in found
                    found[place] = trace.z[i][j], trace.text[i][j], trace.customdata[i][j], trace
    return found


def luminance(colour):
    levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


class TestPhaseDiagram:
    def test_cells_have_the_medians_of_their_runs(self, table):
        figure = plot_phase_diagram(table, x="train_fraction", y="weight_decay")
        seen = cells(figure)
        assert len(seen) == 6
        for f, w in product(FRACTIONS, DECAYS):
            steps = [step for s in SEEDS if (step := grok_step(f, w, s)) is not None]
            height, text, hover, trace = seen[f"{f:g}", f"{w:g}", "xaxis"]
            if not steps:
                assert text == "0 of 3<br>3 memorized"
                assert trace.showscale is False
                continue
            assert height == pytest.approx(math.log10(np.median(steps)))  # over a decade in all
            low, high = (f"{end:,}" for end in (min(steps), max(steps)))
            of = "n = 3" if len(steps) == 3 else "2 of 3"
            assert text == f"{round(np.median(steps)):,}<br>{low} to {high}<br>{of}"
            assert f"median {np.median(steps):,g} of {len(steps)}" in hover
            assert f"{median_interval(steps).coverage:.0%} interval {low} to {high}" in hover
            for s in SEEDS:
                step = grok_step(f, w, s)
                value = "no value, memorized" if step is None else f"{step:,}, grokked"
                assert f"seed {s}, data_seed {s}: {value}" in hover
            assert ("1 of 3 runs have no value" in hover) == (len(steps) == 2)
        assert axis_titles(figure) == ({"train_fraction"}, {"weight_decay"})
        assert "(50% to 75%)" in figure.layout.title.text
        assert [t.name for t in figure.data if t.type == "scatter"] == ["no run has a value"]

    def test_more_seeds_have_a_narrower_interval(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(2, 2, 8))
        rows = [
            {"p": p, "lr": lr, "seed": s, "m": values[p, lr, s]}
            for p, lr, s in product(range(2), range(2), range(8))
        ]
        seen = cells(plot_phase_diagram(pd.DataFrame(rows), x="p", y="lr", value="m"))
        for p, lr in product(range(2), range(2)):
            height, _, hover, _ = seen[str(p), str(lr), "xaxis"]
            ranked = np.sort(values[p, lr])
            assert height == pytest.approx(np.median(ranked))  # of both signs: not logarithmic
            # The second of eight from either end: 1 - 2 (1 + 8) / 2^8.
            assert f"{1 - 18 / 256:.0%} interval {ranked[0]:,.6g} to {ranked[-1]:,.6g}" not in hover
            found = median_interval(list(ranked))
            assert f"{found.coverage:.0%} interval {found.low:,.6g} to {found.high:,.6g}" in hover

    def test_colours_are_around_zero_for_both_signs_and_logarithmic_over_a_decade(self, table):
        def first(value):
            return plot_phase_diagram(
                table, x="train_fraction", y="weight_decay", value=value
            ).data[0]

        assert first("test_loss").zmin == -first("test_loss").zmax
        ticks = first("grok_step").colorbar  # medians from 400 to 40,000
        assert ticks.ticktext == ("500", "1,000", "2,000", "5,000", "10,000", "20,000")
        assert ticks.tickvals == pytest.approx(np.log10([500, 1000, 2000, 5000, 10000, 20000]))
        table["small"] = table.grok_step / 1000  # from 0.4 to 40: no signs, though logarithms have
        assert first("small").colorscale == first("grok_step").colorscale
        assert first("small").colorscale != first("test_loss").colorscale
        close = plot_phase_diagram(
            table, x="train_fraction", y="weight_decay", value="t_train"
        ).data[0]
        assert {z for row in close.z for z in row} == {150}
        assert close.zmax > close.zmin

    def test_text_is_black_on_light_cells_and_white_on_dark_ones(self, table):
        seen = cells(plot_phase_diagram(table, x="train_fraction", y="weight_decay"))
        heights: dict[str, list[float]] = {"#000000": [], "#ffffff": []}
        for height, text, _, trace in seen.values():
            if "0 of" in text:
                assert trace.textfont.color == "#000000"
            else:
                heights[trace.textfont.color].append(height)
        assert min(heights["#000000"]) > max(heights["#ffffff"])  # Viridis is dark below
        for colour in (*LABEL_COLOURS.values(), *SERIES):
            ink, ground = ((luminance(one) + 0.05) for one in (ink_on(colour), colour))
            assert max(ink, ground) / min(ink, ground) > 4.5  # what WCAG asks of text

    @pytest.mark.parametrize("kind", BLINDNESS)
    def test_labels_can_be_told_apart(self, kind):
        colours = (LABEL_COLOURS | OTHER_LABELS).values()
        for one, other in combinations(colours, 2):
            apart = np.linalg.norm(lab(one, BLINDNESS[kind]) - lab(other, BLINDNESS[kind]))
            assert apart > 15, (one, other, apart)

    def test_labels_are_those_of_most_runs(self, table):
        table["label"] = ["grokked", "grokked", "steady"] * 4 + [
            "steady",
            "grokked",
            "memorized",
        ] * 2
        figure = plot_phase_diagram(table, x="train_fraction", y="weight_decay", value="label")
        seen = cells(figure)
        for f, w in product(FRACTIONS, DECAYS):
            _, text, hover, _ = seen[f"{f:g}", f"{w:g}", "xaxis"]
            if w < 10:
                assert text == "grokked<br>2 of 3"
                assert "<b>2 grokked, 1 steady</b>" in hover
            else:
                assert text == "mixed<br>1 steady<br>1 grokked<br>1 memorized"
        legend = {t.name: t.marker.color for t in figure.data if t.type == "scatter"}
        assert [*legend] == ["grokked", "mixed"]
        assert legend["grokked"] == LABEL_COLOURS["grokked"] == COLOURS["test"]
        height, _, _, trace = seen["0.5", "1", "xaxis"]
        share = (height - trace.zmin) / (trace.zmax - trace.zmin)
        at = [colour for place, colour in trace.colorscale if place <= share]
        assert at[-1] == LABEL_COLOURS["grokked"]
        assert "mixed: none has more than half" in figure.layout.title.text

    def test_a_run_without_a_label_counts_among_all(self, table):
        table["label"] = ["grokked", "grokked", None] * 6
        table.loc[0, "label"] = ""
        seen = cells(plot_phase_diagram(table, x="train_fraction", y="weight_decay", value="label"))
        assert seen["0.3", "0.1", "xaxis"][1] == "no label<br>2 of 3"
        assert seen["0.5", "0.1", "xaxis"][1] == "grokked<br>2 of 3"

    def test_what_was_not_trained_is_no_cell(self, table):
        part = table[(table.train_fraction > 0.4) | (table.weight_decay < 5)]
        seen = cells(plot_phase_diagram(part, x="train_fraction", y="weight_decay"))
        assert ("0.3", "10", "xaxis") not in seen
        assert len(seen) == 5

    def test_a_panel_a_value_of_a_third_key(self, table):
        other = table.assign(p=31, grok_step=table.grok_step * 3)
        both = pd.concat([table.assign(p=7), other])
        figure = plot_phase_diagram(both, x="train_fraction", y="weight_decay", by="p")
        seen = cells(figure)
        names = [note.text for note in figure.layout.annotations]
        assert names == ["p = 7", "p = 31"]
        for f, w in product(FRACTIONS, DECAYS):
            one, three = (seen[f"{f:g}", f"{w:g}", axis] for axis in ("xaxis", "xaxis2"))
            if "0 of" not in one[1]:
                assert three[0] - one[0] == pytest.approx(math.log10(3))
        heats = [t for t in figure.data if t.type == "heatmap" and "0 of" not in str(t.text)]
        assert len({(t.zmin, t.zmax) for t in heats}) == 1
        assert sum(t.showscale for t in heats) == 1
        pooled = plot_phase_diagram(both, x="train_fraction", y="weight_decay")
        assert "runs of a cell differ in p too" in pooled.layout.title.text
        assert "differ" not in figure.layout.title.text
        assert "p 31" in cells(pooled)["0.5", "1", "xaxis"][2]

    def test_many_cells_have_the_median_alone(self):
        rows = [
            {"p": p, "lr": lr / 10, "grok_step": 100 * p}
            for p, lr in product(range(5, 15), range(4))
        ]
        seen = cells(plot_phase_diagram(pd.DataFrame(rows), x="p", y="lr"))
        assert len(seen) == 40
        assert seen["5", "0.3", "xaxis"][1] == "500"
        assert seen["14", "0", "xaxis"][1] == "1,400"

    def test_numbers_are_in_order_and_words_as_they_come(self):
        rows = [{"p": p, "optimizer": o, "m": 1.0} for p, o in product((11, 5, 7), ("sgd", "adam"))]
        figure = plot_phase_diagram(pd.DataFrame(rows), x="p", y="optimizer", value="m")
        assert figure.layout.xaxis.ticktext == ("5", "7", "11")
        assert figure.layout.yaxis.ticktext == ("sgd", "adam")
        near = pd.DataFrame({"lr": [0.1, 0.1 + 1e-9, 0.2] * 2, "p": [5] * 3 + [7] * 3, "m": 1.0})
        names = plot_phase_diagram(near, x="lr", y="p", value="m").layout.xaxis.ticktext
        assert len(set(names)) == 3

    def test_the_table_stays_as_it_is(self, table):
        before = table.copy(deep=True)
        plot_phase_diagram(table, x="train_fraction", y="weight_decay")
        plot_phase_diagram(table, x="train_fraction", y="weight_decay", value="label")
        plot_scaling(table, x="weight_decay", by="train_fraction", fit=True)
        sweep_page(table)
        pd.testing.assert_frame_equal(table, before)


class TestScaling:
    def test_dots_medians_and_intervals_are_those_of_the_table(self, table):
        figure = plot_scaling(table, x="weight_decay", by="train_fraction")
        lines = {t.name: t for t in figure.data if t.mode == "lines+markers"}
        dots = {t.name: t for t in figure.data if t.mode == "markers"}
        for f in FRACTIONS:
            name = f"train_fraction = {f:g}"
            here = table[(table.train_fraction == f) & table.grok_step.notna()]
            assert sorted(zip(dots[name].x, dots[name].y, strict=True)) == sorted(
                zip(here.weight_decay, here.grok_step, strict=True)
            )
            groups = here.groupby("weight_decay").grok_step
            assert list(lines[name].x) == list(groups.median().index)
            assert list(lines[name].y) == list(groups.median())
            error = lines[name].error_y
            assert np.allclose(error.array, groups.max() - groups.median())
            assert np.allclose(error.arrayminus, groups.median() - groups.min())
        assert lines["train_fraction = 0.3"].marker.symbol == ("diamond-open", "diamond")
        assert "median 5,333.5 of 2 of 3 runs" not in lines["train_fraction = 0.5"].customdata[0]
        assert "75% interval" in lines["train_fraction = 0.5"].customdata[0]
        assert "(50% to 75%)" in figure.layout.title.text
        assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"

    def test_runs_without_a_value_are_counted_above(self, table):
        figure = plot_scaling(table, x="weight_decay", by="train_fraction")
        strips = [t for t in figure.data if t.mode == "text"]
        assert [(list(t.x), list(t.text)) for t in strips] == [
            ([0.1, 1.0], ["3/3", "1/3"]), ([], []),
        ]  # fmt: skip
        assert {t.yaxis for t in strips} == {"y2"}
        assert figure.layout.yaxis.domain[1] < figure.layout.yaxis2.domain[0]
        assert strips[0].customdata[1] == (
            "no value: 1 of 3 runs<br>seed 2, data_seed 2: no value, memorized"
        )
        assert "without it when training ended" in figure.layout.title.text
        whole = plot_scaling(table, x="weight_decay", value="test_loss", by="train_fraction")
        assert not [t for t in whole.data if t.mode == "text"]
        assert "above" not in whole.layout.title.text
        assert whole.layout.yaxis.type is None

    def test_runs_without_a_value_are_crosses_where_their_numbers_would_overlap(self):
        rows = [{"p": p, "grok_step": p if p % 3 else None} for p in range(5, 40)]
        figure = plot_scaling(pd.DataFrame(rows), x="p")
        (strip,) = [t for t in figure.data if t.yaxis == "y2"]
        assert (list(strip.x), strip.mode) == ([*range(6, 40, 3)], "markers")
        assert strip.customdata[0].startswith("no value: 1 of 1 runs")

    def test_without_by_dots_have_the_colours_of_labels(self, table):
        figure = plot_scaling(table, x="weight_decay", value="t_train")
        dots = {t.name: t for t in figure.data if t.mode == "markers"}
        assert {name: t.marker.color for name, t in dots.items()} == {
            label: faded(LABEL_COLOURS[label], 0.6) for label in ("grokked", "memorized")
        }
        assert {n: len(t.x) for n, t in dots.items()} == table.label.value_counts().to_dict()
        assert "runs at one x differ in train_fraction too" in figure.layout.title.text

    def test_a_zero_and_words_have_places_in_order(self, table):
        figure = plot_scaling(table.assign(weight_decay=table.weight_decay - 0.1), x="weight_decay")
        assert figure.layout.xaxis.ticktext == ("0", "0.9", "9.9")
        assert figure.layout.xaxis.tickvals == (0, 1, 2)
        words = table.assign(optimizer=["sgd", "adam"] * 9)
        figure = plot_scaling(words, x="optimizer", fit=True)
        assert figure.layout.xaxis.ticktext == ("sgd", "adam")
        assert [t.name for t in figure.data if t.mode == "lines"] == [
            "no power law: it takes 3 x, 6 runs"
        ]

    def test_the_power_law_is_that_of_the_runs_at_whole_x(self, table):
        extra = table[table.weight_decay == 10].assign(weight_decay=100.0)
        extra.grok_step /= 10
        table = pd.concat([table, extra])
        figure = plot_scaling(table, x="weight_decay", by="train_fraction", fit=True)
        unfit, law = [t for t in figure.data if t.mode == "lines"]
        assert unfit.name == "no power law: it takes 3 x, 6 runs"  # 10 and 100 alone are whole
        here = table[table.train_fraction == 0.5]
        slope = np.polyfit(np.log(here.weight_decay), np.log(here.grok_step), 1)[0]
        found = power_law(list(here.weight_decay), list(here.grok_step))
        assert found.exponent == pytest.approx(slope)
        assert law.name == f"exponent {slope:.3g} (95%: {found.low:.3g} to {found.high:.3g})"
        assert law.y[-1] / law.y[0] == pytest.approx((law.x[-1] / law.x[0]) ** slope)
        negative = plot_scaling(table.assign(m=-1.0), x="weight_decay", value="m", fit=True)
        assert negative.data[1].name == "no power law: not all above 0"


class TestPowerLaw:
    def test_against_scipy_and_an_exact_law(self):
        x = [2, 2, 3, 3, 5, 5, 8, 8]
        y = [3 * one**-1.5 for one in x]
        found = power_law(x, y)
        assert (found.exponent, found.factor) == pytest.approx((-1.5, 3))
        assert (found.low, found.high) == pytest.approx((-1.5, -1.5))
        rng = np.random.default_rng(1)
        noisy = [one * math.exp(rng.normal() * 0.3) for one in y]
        found = power_law(x, noisy)
        fitted = stats.linregress(np.log(x), np.log(noisy))
        assert found.exponent == pytest.approx(fitted.slope)
        assert found.factor == pytest.approx(math.exp(fitted.intercept))
        assert found.low < fitted.slope < found.high
        # Within a third of the interval that the normal distribution gives.
        width = 2 * fitted.stderr * stats.t.ppf(0.975, len(x) - 2)
        assert 0.5 < (found.high - found.low) / width < 1.5

    def test_where_there_is_none(self):
        for x, y in (
            ([1, 2, 3, 4, 5], [1] * 5),
            ([1, 1, 1, 2, 2, 2], [1] * 6),
            ([0, 1, 2, 3, 4, 5], [1] * 6),
            ([1, 2, 3, 4, 5, 6], [1, 2, 3, -1, 1, 1]),
            ([1, 2, 3, 4, 5, 6], [1, 2, math.nan, 1, 1, 1]),
        ):
            assert math.isnan(power_law(x, y).exponent)


class TestPage:
    def test_two_keys_make_diagrams_of_steps_and_labels(self, table):
        page = sweep_page(table)
        assert page.lstrip().startswith("<!doctype html>")
        assert titles(page) == [
            "grok_step (updates) by weight_decay, train_fraction",
            "label by weight_decay, train_fraction",
        ]
        assert "<script src" not in page
        assert page.count("<tr>") + page.count("<tr ") == len(table) + 1
        assert "fingerprint" not in page.split("<h2>Runs</h2>")[1]
        assert "labels: 14 grokked, 4 memorized" in page

    def test_the_value_is_the_first_that_there_is(self, table):
        older = table.drop(columns="grok_step").assign(t_test=[300] * len(table))
        assert titles(sweep_page(older))[0].startswith("t_test (updates)")
        assert "need not be good" in sweep_page(older)
        nothing = table.assign(grok_step=math.nan)
        assert titles(sweep_page(nothing))[0].startswith("test_loss (nats)")
        assert "No run has a grok_step." in sweep_page(nothing)
        assert titles(sweep_page(table, value="test_loss"))[0].startswith("test_loss (nats)")
        labels = nothing.drop(columns="test_loss")
        assert titles(sweep_page(labels)) == ["label by weight_decay, train_fraction"]
        assert titles(sweep_page(labels.assign(label=""))) == []

    def test_one_key_makes_a_scaling_plot(self, table):
        one = table[table.train_fraction == 0.5]
        assert titles(sweep_page(one)) == ["grok_step (updates) by weight_decay"]

    def test_seeds_alone_make_no_figure(self, table):
        page = sweep_page(table.head(3))
        assert titles(page) == []
        assert "Nothing but seeds varies" in page
        assert "train_fraction=0.3,weight_decay=0.1,seed=0" in page

    def test_a_key_that_goes_with_others_is_no_axis(self, table):
        steps = (1000 * table.weight_decay / table.train_fraction).astype(int)
        table.insert(1, "steps", steps)
        page = sweep_page(table)
        assert titles(page)[0] == "grok_step (updates) by weight_decay, train_fraction"
        assert "steps varies with weight_decay and train_fraction" in page
        table["p"] = (table.train_fraction * 10).astype(int)
        assert titles(sweep_page(table))[0].endswith("by weight_decay, train_fraction")

    def test_the_example(self):
        table = pd.read_csv(f"{EXAMPLES}/transformer-map.csv")
        page = sweep_page(table)
        assert titles(page) == [
            "t_test (updates) by train_fraction, init_scale", "label by train_fraction, init_scale",
        ]  # fmt: skip
        assert titles(sweep_page(pd.read_csv(f"{EXAMPLES}/mlp.csv"))) == [
            "t_test (updates) by init_scale"
        ]

    def test_further_keys_make_panels_up_to_six(self, table):
        many = pd.concat([table.assign(p=p, lr=lr) for p in (5, 7) for lr in (1, 2)])
        page = sweep_page(many)
        assert len(titles(page)) == 2
        for name in ("p=5, lr=1", "p=7, lr=2"):
            assert name in page
        assert "are not drawn" not in page
        many = pd.concat([table.assign(p=p, optimizer=o) for p in (5, 7) for o in "abcd"])
        page = sweep_page(many)  # weight_decay and optimizer have more values than the others
        assert titles(page)[0].endswith("by weight_decay, optimizer")
        many = pd.concat([table.assign(p=p, lr=lr) for p in (5, 7, 11) for lr in (1, 2, 3)])
        page = sweep_page(many)
        assert "not drawn" not in page
        many = pd.concat([many.assign(d_mlp=d) for d in (1, 2, 3)])
        assert "12 of 18 combinations of" in sweep_page(many)

    def test_a_table_that_is_long_or_has_notes_says_so(self, table):
        table.loc[3, "note"] = "out of memory"
        assert "1 of 18 runs have a note" in sweep_page(table)
        long = pd.concat([table] * 60)
        page = sweep_page(long)
        assert "The first 1000 of 1080." in page
        assert page.count("<tr>") + page.count("<tr ") == 1001

    def test_a_key_that_is_empty_somewhere_is_no_axis(self, table):
        table["p"] = [5, 7, None] * 6
        page = sweep_page(table)
        assert "p varies and is empty in some runs" in page
        assert titles(page)[0].endswith("by weight_decay, train_fraction")

    def test_hostile_names_are_escaped(self, table):
        table["optimizer"] = [HOSTILE, "sgd"] * 9
        table["run"] = HOSTILE
        table["note"] = HOSTILE
        table["label"] = HOSTILE
        table[HOSTILE] = 1.0
        table = table[table.train_fraction == 0.5]
        for page in (
            sweep_page(table, title=HOSTILE),
            sweep_page(table, value=HOSTILE),
            sweep_page(table[table.weight_decay == 1]),
        ):
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert(" in page.split("<h2>Runs</h2>")[1]
            assert "&amp;lt;" not in page
        figure = plot_phase_diagram(table, x="optimizer", y="weight_decay", value=HOSTILE)
        assert "<script" not in figure.to_json().replace("\\u003c", "<")


def titles(page):
    """The first lines of the titles of the figures in a page."""
    found = re.findall(r'"title":(\{"text":"(?:[^"\\]|\\.)*"\}),?', page)
    texts = [json.loads(text)["text"].split("<br>")[0] for text in found]
    return [text for text in texts if " by " in text]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "weigth_decay"}, "no column 'weigth_decay'; did you mean 'weight_decay'?"),
        ({"y": "colour"}, "no column 'colour'; "),
        ({"value": "groksteps"}, "no column 'groksteps'; did you mean 'grok_step'?"),
        ({"x": "t_train"}, "'t_train' has one value, 150; an axis takes two or more."),
        ({"value": "run"}, "'run' is no number ('train_fraction=0.3"),
        ({"value": "nothing"}, "no run has a value in 'nothing'"),
        ({"x": "gaps"}, "'gaps' is empty in 3 of 18 rows"),
        ({"y": "train_fraction"}, "give each once"),
        ({"by": "run"}, "has 18 values; at most 12 panels"),
        ({"by": ["seed", "weight_decay"]}, "give each once"),
        ({"x": 3}, "no column 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(table, arguments, message):
    table["nothing"] = math.inf
    table["gaps"] = [1, 2, 3, 4, 5, None] * 3
    given = {"x": "train_fraction", "y": "weight_decay", **arguments}
    with pytest.raises(InputError) as refused:
        plot_phase_diagram(table, **given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tables_that_are_none_are_refused(table):
    for draw in (
        lambda t: plot_phase_diagram(t, x="p", y="lr"),
        lambda t: plot_scaling(t, x="p"),
        sweep_page,
    ):
        with pytest.raises(InputError, match="the table has no run"):
            draw(table.head(0))
        with pytest.raises(InputError, match="run_sweep"):
            draw("results.csv")
        with pytest.raises(InputError, match="two columns 'seed'"):
            draw(pd.concat([table, table[["seed"]]], axis=1))
    unlabelled = table.assign(label="")
    with pytest.raises(InputError, match="no run has a label"):
        plot_phase_diagram(unlabelled, x="train_fraction", y="weight_decay", value="label")
    with pytest.raises(InputError, match="no run has a value in 'note'"):
        sweep_page(table, value="note")
    lines = len(SERIES) * len(DASHES)
    many = pd.concat([table.assign(p=p) for p in range(lines + 1)])
    with pytest.raises(InputError, match=f"has {lines + 1} values; at most {lines} lines"):
        plot_scaling(many, x="weight_decay", by="p")
