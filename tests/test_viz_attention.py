"""Attention maps and CircuitsVis: numbers against the cache of the hooked model."""

import importlib.metadata
import json
import math
import re
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import attention, attention_patterns
from grokinterp.runs._snapshot import from_weights
from grokinterp.viz import circuitsvis_script, plot_attention
from tests.labels import axis_titles
from tests.models_of_users import hooks_of
from tests.test_architectures import P, example

PAIRS = [(2, 5), (6, 1)]


def own_patterns(variant, layer):
    architecture, weights, task = example(variant)
    model = architecture.hooked(weights)
    with torch.no_grad():
        _, cache = model.run_with_cache(task.tokens)
    return cache[f"blocks.{layer}.attn.hook_pattern"], from_weights(weights, architecture, task)


@pytest.mark.parametrize(("to", "position"), [("a", 0), ("b", 1), ("equals", 2)])
def test_a_pixel_is_what_the_answer_position_gives(to, position):
    own, snapshot = own_patterns("two layers", 1)
    figure = attention(snapshot, layer=1).plot(to)
    assert len(figure.data) == 2
    for head, trace in enumerate(figure.data):
        expected = own[:, head, -1, position].view(P, P)
        assert np.allclose(trace.z, expected, atol=1e-7)
        assert (trace.zmin, trace.zmax) == (0, 1)
        assert trace.z.dtype == np.float32
        assert trace.hovertemplate == (
            f"head {head}<br>a = %{{y}}, b = %{{x}}<br>attention %{{z:.5g}}<extra></extra>"
        )
    shown = {"a": "operand a", "b": "operand b", "equals": '"="'}[to]
    assert figure.layout.title.text == f"Attention of layer 1 to {shown}"
    assert axis_titles(figure) == ({"operand b"}, {"operand a"})
    assert figure.data[0].colorbar.title.text == "attention"


def test_maps_of_several_steps_are_of_one_kind(tiny_run):
    figures = [attention(tiny_run, step=step).plot() for step in (0, 60)]
    assert [[trace.type for trace in figure.data] for figure in figures] == [["heatmap"] * 2] * 2
    assert "step 60" in figures[1].layout.title.text


def test_a_position_that_is_not_there_is_refused():
    _, snapshot = own_patterns("no equals", 0)
    found = attention(snapshot)
    assert plot_attention(found, to="b").data
    for to in ("equals", "c", 0):
        with pytest.raises(gi.InputError, match="is not known; valid are: a, b") as refused:
            plot_attention(found, to=to)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variant", "layer"),
    [
        ("canonical", 0), ("two layers", 1), ("no equals", 0), ("bidirectional", 1),
        ("blended attention", 0),
    ],
)  # fmt: skip
def test_patterns_are_the_models_own_from_every_position(variant, layer):
    own, snapshot = own_patterns(variant, layer)
    found = attention_patterns(snapshot, inputs=PAIRS, layer=layer)
    expected = own[[a * P + b for a, b in PAIRS]]
    assert torch.allclose(found.patterns, expected, atol=1e-9)
    assert found.patterns.dtype == torch.float64
    n_tokens = expected.shape[-1]
    assert found.tokens[0] == ("a=2", "b=5", "=")[:n_tokens]
    table = found.table()
    assert len(table) == 2 * expected.shape[1] * n_tokens**2
    row = table[(table.a == 6) & (table["head"] == 1) & (table["query"] == "b=1")]
    assert row[row.key == "a=6"].attention.item() == pytest.approx(float(expected[1, 1, 1, 0]))
    assert table.attrs == {"layer": layer, "step": None}
    causal = variant not in ("bidirectional", "blended attention")
    props = found.props(1)
    assert props["maskUpperTri"] is causal
    assert props["attention"] == found.patterns[1].tolist()
    assert props["tokens"] == list(found.tokens[1])
    assert json.loads(json.dumps(props)) == props
    last = attention(snapshot, layer=layer).pattern
    for i, (a, b) in enumerate(PAIRS):
        assert torch.allclose(found.patterns[i, :, -1], last[:, :, a, b].double(), atol=1e-6)


def test_steps_of_a_run(tiny_run):
    found = attention_patterns(tiny_run, inputs=[(3, 5)], step=20)
    own = attention(tiny_run, step=20).pattern[:, :, 3, 5]
    assert torch.allclose(found.patterns[0, :, -1], own.double(), atol=1e-6)
    assert found.step == 20


def test_a_users_model_is_left_alone():
    architecture, weights, task = example("canonical")
    model = architecture.hooked(weights)
    before = hooks_of(model)
    found = attention_patterns(model, task=task)
    assert found.inputs == ((0, 0),)
    assert hooks_of(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not found.patterns.requires_grad


def test_pairs_may_be_tensors_and_arrays(tiny_run):
    plain = attention_patterns(tiny_run, inputs=[(0, 3), (5, 1)])
    pairs = torch.tensor([[0, 3], [5, 1]])
    for inputs in (pairs, pairs.numpy(), list(pairs), list(pairs.numpy())):
        found = attention_patterns(tiny_run, inputs=inputs)
        assert found.inputs == ((0, 3), (5, 1))
        assert torch.equal(found.patterns, plain.patterns)
    for inputs in (pairs.double(), pairs[0], torch.tensor(3), pairs + 6):
        with pytest.raises(gi.InputError, match="is not a pair"):
            attention_patterns(tiny_run, inputs=inputs)


def test_bad_inputs_are_refused_in_one_line(tiny_run, tmp_path):
    for inputs in ([], [(0, 7)], [(-1, 0)], [(0,)], [(0, 1, 2)], [[7, 0]]):
        with pytest.raises(gi.InputError, match="input"):
            attention_patterns(tiny_run, inputs=inputs)
    for layer in (1, -1, True):
        with pytest.raises(gi.InputError, match="is not a whole number from 0 to 0"):
            attention_patterns(tiny_run, layer=layer)
    mlp = gi.Recipe(model="mlp", p=7, widths=(16,), steps=0, train_fraction=0.5)
    with pytest.raises(gi.InputError, match="no attention"):
        attention_patterns(gi.train(mlp, tmp_path / "run"))
    architecture, weights, task = example("canonical")
    broken = weights | {"blocks.0.attn.W_Q": weights["blocks.0.attn.W_Q"] * math.nan}
    with pytest.raises(gi.InputError, match="not finite"):
        attention_patterns(from_weights(broken, architecture, task))


@pytest.fixture
def circuitsvis(monkeypatch):
    """The package itself, which needs a backport of what Python has had for long."""
    backport = ModuleType("importlib_metadata")
    backport.version = importlib.metadata.version
    monkeypatch.setitem(sys.modules, "importlib_metadata", backport)
    return pytest.importorskip("circuitsvis.attention")


def test_what_is_shown_is_what_circuitsvis_shows(tiny_run, circuitsvis):
    """Its own page of each input draws the same properties with the same script."""
    found = attention_patterns(tiny_run, inputs=PAIRS)
    page = found.show()
    assert page._repr_html_() == page
    calls = re.findall(r'CircuitsVis.render\("([^"]+)", CircuitsVis.AttentionHeads, (.*)\);', page)
    assert [f'<div id="{name}">' in page for name, _ in calls] == [True, True]
    for i, (_, props) in enumerate(calls):
        theirs = circuitsvis.attention_heads(
            found.patterns[i], list(found.tokens[i]), attention_head_names=["head 0", "head 1"],
            max_value=1, min_value=0, mask_upper_tri=True,
        ).local_src  # fmt: skip
        tail = theirs.rpartition("CircuitsVis.AttentionHeads,")[2].partition("\n    )")[0]
        assert json.loads(props) == json.loads(tail)
    assert 'src="' not in page
    assert "unpkg" not in page
    assert found.show() != page  # ids of their own, so that both can stand in one notebook


@pytest.mark.skipif(find_spec("circuitsvis") is None, reason="an optional package")
def test_the_script_can_stand_inside_a_page():
    script = circuitsvis_script()
    assert script.startswith('"use strict";var CircuitsVis=')
    assert "</script" not in script.lower()
    assert "<!--" not in script
    assert "sourceMappingURL" not in script
    assert r"<script><\/script>" in script


def test_without_circuitsvis_only_its_view_is_missing(tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "circuitsvis", None)
    found = attention_patterns(tiny_run)
    assert len(found.table()) == 18
    assert attention(tiny_run).plot().data
    for call in (found.show, circuitsvis_script):
        with pytest.raises(gi.InputError, match=r"pip install 'grokinterp\[circuitsvis\]'") as no:
            call()
        assert "\n" not in str(no.value)


def test_figures_import_no_optional_package():
    code = (
        "import sys, grokinterp.viz; "
        "print([m for m in ('kaleido', 'circuitsvis', 'selenium') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
