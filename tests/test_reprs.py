"""What results look like in a notebook: cells against the tables, and hostile names."""

import os
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.base.result import ROWS, card
from grokinterp.circuits import hooks
from grokinterp.claims import Claim
from grokinterp.reading._load import ForeignStore

HOSTILE = "<script>alert('a\"b')</script>&amp; \u2028é\U0001f600"
LEFT = [("style", "text-align: left")]
STYLES = {"th": LEFT, "td": LEFT, "table": [("style", "color: inherit")]}
TAGS = {"div", "b", "br", "table", "tr", "th", "td", "ul", "li"}


class Reader(HTMLParser):
    """Title, rows of cells, notes and all text of a card; refuses other tags."""

    def __init__(self, html):
        super().__init__()
        self.title, self.rows, self.notes, self.text, self.open = "", [], [], "", []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS
        assert attributes == STYLES.get(tag, [])
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "li":
            self.notes.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text + "\n"
        if self.open[-1] == "b":
            self.title += text
        if self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += text
        if self.open[-1] == "li":
            self.notes[-1] += text


def read(x):
    html = x if isinstance(x, str) else x._repr_html_()
    html.encode()  # Jupyter sends UTF-8
    return Reader(html)


def cells(table):
    """A table as a card shows it, written the long way round."""
    rows = [[str(column) for column in table.columns]]
    for i in range(min(len(table), 12)):
        row = []
        for column in table.columns:
            value = table[column].iloc[i]
            if isinstance(value, tuple):
                row.append(f"{value[0]} to {value[1]}")
            elif pd.isna(value):
                row.append("-")
            elif pd.api.types.is_float_dtype(table[column]):
                row.append(format(value, ".4g"))
            else:
                row.append(str(value))
        rows.append(row)
    return rows


class TestCard:
    def test_everything_is_escaped_and_comes_back_whole(self):
        frame = pd.DataFrame({HOSTILE: [HOSTILE, None], "n": [0.123456, float("nan")]})
        html = card(HOSTILE, [HOSTILE, "two"], frame, notes=[HOSTILE])
        assert "<script" not in html
        found = read(html)
        assert found.title == HOSTILE
        assert found.rows == [[HOSTILE, "n"], [HOSTILE, "0.1235"], ["-", "-"]]
        assert found.notes == [HOSTILE]
        assert found.text.count(HOSTILE) == 5
        assert "'" not in html
        assert html.count('"') == 2 * 7  # of the styles alone

    def test_a_name_that_is_no_unicode_is_spelt_out(self):
        assert read(card("run \udcff")).title == "run \\udcff"

    def test_long_tables_are_counted_and_long_cells_kept(self):
        frame = pd.DataFrame({"i": range(20), "text": "x" * 500})
        found = read(card("t", table=frame))
        assert ROWS == 12
        assert [row[0] for row in found.rows[1:]] == [str(i) for i in range(12)]
        assert found.rows[1][1] == "x" * 500
        assert "... and 8 more" in found.text
        assert "more" not in read(card("t", table=frame.head(12))).text

    def test_kinds_of_cells(self):
        frame = pd.DataFrame(
            {
                "span": [(1, 20), None],
                "none": pd.array([None, 3], dtype="Int64"),
                "large": [1.23456e8, float("inf")],
                "whole": [123456789, 0],
                "true": [True, False],
            }
        )
        assert read(card("t", table=frame)).rows[1:] == [
            ["1 to 20", "-", "1.235e+08", "123456789", "True"],
            ["-", "3", "inf", "0", "False"],
        ]

    def test_the_table_is_left_as_it_is_and_the_readers_options_do_not_matter(self):
        frame = pd.DataFrame({"x": [0.123456]})
        with pd.option_context("display.precision", 1, "display.max_colwidth", 5):
            assert read(card("t", table=frame)).rows == [["x"], ["0.1235"]]
        assert frame["x"].tolist() == [0.123456]

    def test_without_a_table_there_is_none(self):
        assert read(card("t", table=pd.DataFrame())).rows == []
        assert "<ul>" not in card("t")


class TestRun:
    def test_the_last_metrics_and_what_differs_from_the_defaults(self, shipped):
        found = read(shipped)
        assert found.title == f"Run {shipped.path}"
        assert found.rows == cells(shipped.metrics.tail(1))
        assert "add mod 113, 26 checkpoints, steps 0 to 12000\n" in found.text
        assert "recipe: data_seed=598, seed=1, steps=12000\n" in found.text

    def test_the_defaults_are_those_of_the_task_and_model(self, tmp_path):
        recipe = gi.Recipe(model="mlp", p=5, d_mlp=8, steps=2)
        run = gi.train(recipe, tmp_path / "run")
        assert "recipe: p=5, model=mlp, d_mlp=8, steps=2\n" in read(run).text

    def test_a_hostile_folder(self, tiny_run, tmp_path):
        folder = tmp_path / HOSTILE.replace("/", "") / os.fsdecode(b"\xff")
        shutil.copytree(tiny_run.path, folder)
        assert "<script>alert" in read(gi.load(folder)).title

    def test_unfinished_and_damaged(self, tiny_run, tmp_path):
        folder = shutil.copytree(tiny_run.path, tmp_path / "run")
        run = gi.load(folder)
        run.manifest = replace(run.manifest, finished=False)
        (folder / "metrics.csv").write_text("broken")
        found = read(run)
        assert "steps 0 to 60, unfinished" in found.text
        assert "metrics.csv" in found.text
        assert found.rows == []

    def test_of_others_nothing_is_computed(self, tiny_run, tmp_path, monkeypatch):
        path = gi.export(tiny_run, tmp_path / "demo.pth")
        run = gi.load(path)
        computed = ForeignStore.metrics
        monkeypatch.setattr(ForeignStore, "metrics", lambda *_: pytest.fail("too much"))
        found = read(run)
        assert found.rows == []
        assert found.notes == list(run.notes)
        assert found.notes
        assert "recipe" not in found.text
        monkeypatch.setattr(ForeignStore, "metrics", computed)
        assert run.metrics is not None
        assert read(run).rows == cells(run.metrics.tail(1))


class TestSnapshot:
    def test_accuracies_once_the_logits_are_there(self, shipped, monkeypatch):
        snapshot = shipped.snapshot(5200)
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "_forward", lambda *_: pytest.fail("too much"))
            assert read(snapshot).rows == []
        assert snapshot.logits is not None
        found = read(snapshot)
        assert found.title == "Snapshot(add mod 113 at step 5200)"
        assert "transformer, layers: 1\n" in found.text
        right = snapshot.logits.argmax(1) == snapshot.task.labels
        train = shipped.train_mask
        assert found.rows == [
            ["inputs", "n", "accuracy"],
            ["train", "3830", f"{right[train].sum().item() / 3830:.4g}"],
            ["test", "8939", f"{right[~train].sum().item() / 8939:.4g}"],
            ["all", "12769", f"{right.sum().item() / 12769:.4g}"],
        ]
        assert float(found.rows[2][2]) < 0.9

    def test_without_a_split_there_are_only_all(self, tiny_run):
        snapshot = gi.snapshot(tiny_run.model(), tiny_run.task)
        assert snapshot.logits is not None
        assert [row[0] for row in read(snapshot).rows] == ["inputs", "all"]
        assert read(snapshot).title == "Snapshot(add mod 7)"


class TestKeyFrequencies:
    def test_shares_rule_and_cut(self, shipped):
        keys = gi.key_frequencies(shipped)
        found = read(keys)
        assert found.title == "Key frequencies (logits rule): 9, 18, 53, 55"
        assert found.rows == cells(keys.table())
        assert f"their shares sum to {keys.kept_share:.4g}\n" in found.text
        assert f"the smallest is {keys.cut_ratio:.4g} times the next share\n" in found.text
        assert "step 12000\n" in found.text
        assert "... and 44 more" in found.text

    def test_none_and_undefined(self, tiny_run):
        none = gi.key_frequencies(tiny_run.snapshot(0))
        assert none.frequencies == ()
        assert read(none).title.endswith(": none")
        assert f"{none.reason}\n" in read(none).text
        assert "sum to" not in read(none).text
        model, task = tiny_run.model(), gi.ModularTask("random", p=7)
        undefined = gi.key_frequencies(model, task=task)
        assert undefined.frequencies is None
        assert read(undefined).title.endswith(": undefined")
        assert read(undefined).rows == []
        assert f"{undefined.reason}\n" in read(undefined).text


class TestPhases:
    def test_label_phases_and_reasons(self, shipped, shipped_measures):
        phases = gi.detect_phases(shipped, measures=shipped_measures)
        found = read(phases)
        assert found.title == "Phases: grokked"
        assert found.rows == cells(phases.table())
        assert found.notes == list(phases.reasons)
        assert f"memorization_step {phases.memorization_step}\n" in found.text
        assert f"grok_step {phases.grok_step}\n" in found.text
        assert "key frequencies 9, 18, 53, 55\n" in found.text

    def test_what_is_not_known(self):
        phases = gi.detect_phases(pd.DataFrame({"step": [0, 1], "train_loss": [1.0, 0.9]}))
        found = read(phases)
        assert "grok_step not reached or not known\n" in found.text
        assert "key frequencies " not in found.text.replace("key frequencies: none", "")
        assert found.rows == []


class TestAblation:
    def test_the_costliest_rows(self, shipped):
        ablation = gi.ablate(shipped, [hooks.neurons(0, i) for i in range(14)], placebos=2)
        found = read(ablation)
        columns = ["step", "ablation", "loss_all", "acc_all", "ratio", "placebo_min",
                   "placebo_max", "verdict"]  # fmt: skip
        table = ablation.table()
        assert found.title == f"Ablations: {len(table)}"
        costliest = sorted(range(len(table)), key=lambda i: -table["ratio"][i])
        assert found.rows == cells(table.loc[costliest, columns])
        assert f"... and {len(table) - 12} more" in found.text
        assert "key frequencies 9, 18, 53, 55; up to 2 placebos each, seed 0\n" in found.text

    def test_notes_names_and_no_rows(self, tiny_run):
        snapshot = gi.snapshot(tiny_run.model(), tiny_run.task)
        ablation = gi.ablate(snapshot, [hooks.heads(0, 0).called(HOSTILE)], placebos=0)
        found = read(ablation)
        assert found.rows[1][:2] == ["-", HOSTILE]
        assert found.notes == list(ablation.notes)
        assert "train and test are null: the model came without a split" in found.notes


def test_a_comparison_says_its_claims():
    claims = tuple(
        Claim(
            name=f"claim{i}", statement=f"{HOSTILE} {i}", source="source", verdict=verdict,
            reason="reason " * 30, numbers={}, seeds={"grokked": 1, "steady": i}, rule="rule",
            would_change="change",
        )
        for i, verdict in enumerate(("supported", "undetermined"))
    )  # fmt: skip
    comparison = gi.Comparison(
        profiles=(), regimes={HOSTILE: "grokked", "b": "steady"},
        settings={HOSTILE: "w0=10", "b": "w0=1"}, claims=claims, notes=(HOSTILE,), align="phase",
        by="setting",
    )  # fmt: skip
    found = read(comparison)
    assert found.rows == cells(
        comparison.claims_table()[["statement", "verdict", "reason", "seeds"]]
    )
    assert found.rows[2][1] == "undetermined"
    assert f"{HOSTILE}: grokked (w0=10)\n" in found.text
    assert found.notes == [HOSTILE]


@pytest.mark.parametrize("step", [None, 7])
def test_the_terminal_keeps_its_plain_line(tiny_run, step):
    snapshot = gi.snapshot(tiny_run.model(), tiny_run.task, step=step)
    at = "" if step is None else " at step 7"
    assert repr(snapshot) == f"Snapshot(add mod 7{at})"
    assert repr(tiny_run).startswith("Run(")
    assert repr(gi.ablate(snapshot, hooks.mlp(0))).startswith("Ablation(1 rows")
