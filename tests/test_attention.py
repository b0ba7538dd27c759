"""Attention: patterns against TransformerLens, readouts and fits against heads built by hand."""

import copy
import math

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._attention import attention, commutativity
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.test_architectures import P, example

PATTERN = "blocks.{}.attn.hook_pattern"


@pytest.mark.parametrize(
    ("variant", "layer"),
    [
        ("canonical", 0), ("two layers", 1), ("layer norm", 0), ("deep layer norm", 2),
        ("no equals", 0), ("bidirectional", 0), ("bidirectional without equals", 1),
        ("blended attention", 0),
    ],
)  # fmt: skip
def test_patterns_are_the_models_own_as_functions_of_a_and_b(variant, layer):
    architecture, weights, task = example(variant)
    model = architecture.hooked(weights)
    _, cache = model.run_with_cache(task.tokens)
    own = cache[PATTERN.format(layer)][:, :, -1]  # [row a * p + b, head, position]
    found = attention(from_weights(weights, architecture, task), layer=layer)
    for a, b in ((0, 0), (2, 5), (6, 1)):
        assert torch.allclose(found.pattern[:, :, a, b], own[a * P + b], atol=1e-9)
    table = found.table()
    for i, name in enumerate(("a", "b", "equals")[: task.tokens.shape[1]]):
        assert table[f"to_{name}"].tolist() == pytest.approx(own[:, :, i].mean(0).tolist())
        spread = own[:, :, i].std(0, correction=0).tolist()
        assert table[f"spread_{name}"].tolist() == pytest.approx(spread)
    assert ("to_equals" in table) == task.equals_token
    assert found.layer == layer
    assert found.step is None


@pytest.mark.parametrize("p", [7, 6])
def test_shares_are_those_of_the_eight_terms(p):
    """Explicit least squares on const, cos, sin of a times the same of b, all but the constant."""
    sizes = {"n_layers": 1, "n_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 8, "n_ctx": 3}
    architecture = TransformerArchitecture(**sizes, d_vocab=p + 1, d_vocab_out=p)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in architecture.parameter_shapes().items()
    }
    task = ModularTask("add", p)
    found = attention(from_weights(weights, architecture, task), frequencies=[2])
    a, b = task.operands.double().unbind(1)
    variance = found.pattern.var(dim=(2, 3), correction=0).sum(1)
    for k in range(1, p // 2 + 1):
        one = [torch.ones_like(a)]
        of_a, of_b = (
            one + [f(2 * math.pi * k * x / p) for f in (torch.cos, torch.sin)] for x in (a, b)
        )
        terms = torch.stack([x * y for x in of_a for y in of_b], dim=1)[:, 1:]
        basis = torch.linalg.svd(terms, full_matrices=False)
        basis = basis.U[:, basis.S > 1e-9]
        centred = (found.pattern - found.pattern.mean((2, 3), keepdim=True)).flatten(2)
        explained = (centred @ basis).square().sum((1, 2)) / (p * p * variance)
        assert found.shares[:, k - 1].tolist() == pytest.approx(explained.tolist())
    table = found.table()
    assert table["frequency"].tolist() == (found.shares.argmax(1) + 1).tolist()
    assert table["share"].tolist() == pytest.approx(found.shares.max(1).values.tolist())
    assert table["key"].tolist() == [k == 2 for k in table["frequency"]]


def test_tokens_are_counted_in_the_order_of_the_group():
    """Renaming the tokens of addition mod 6 by discrete logs gives multiplication mod 7."""
    architecture, weights, _ = example("canonical")
    task = ModularTask("multiply", P)
    found = attention(from_weights(weights, architecture, task), frequencies=[1])
    order = task.answer_group.tokens  # 1, g, g^2, ...
    add = TransformerArchitecture(**{**vars(architecture), "d_vocab": 7, "d_vocab_out": 6})
    renamed = dict(weights)
    renamed["embed.W_E"] = weights["embed.W_E"][torch.cat([order, torch.tensor([P])])]
    renamed["unembed.W_U"] = weights["unembed.W_U"][:, order]
    renamed["unembed.b_U"] = weights["unembed.b_U"][order]
    expected = attention(from_weights(renamed, add, ModularTask("add", 6)), frequencies=[1])
    assert torch.allclose(found.shares, expected.shares, atol=1e-12)
    assert found.shares.shape == (2, 3)


def test_clock_weights_look_at_all_positions_alike():
    weights = clock.clock_weights(31, (2, 5), 10.0)
    snapshot = from_weights(weights, clock.clock_architecture(31, 2), ModularTask("add", 31))
    found = attention(snapshot)
    assert found.mean.flatten().tolist() == pytest.approx([1 / 3] * 3)
    assert found.frequencies == (2, 5)
    row = found.table().iloc[0]
    assert row["spread_a"] < 1e-7
    assert row["note"] == "constant over the inputs"
    assert row[["frequency", "share", "key"]].isna().all()


def test_commutativity_is_the_difference_of_the_means(tiny_run):
    found = commutativity(tiny_run)
    assert found.index.name == "step"
    assert found.index.tolist() == list(tiny_run.steps)
    for step in tiny_run.steps:
        _, cache = tiny_run.model(step).run_with_cache(tiny_run.task.tokens)
        own = cache[PATTERN.format(0)][:, :, -1].double().mean(0)
        expected = (own[:, 0] - own[:, 1]).tolist()
        assert found.loc[step].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_shipped_run_comes_to_treat_its_operands_alike(shipped):
    """Lopsided while it memorises, even once it has the circuit."""
    found = commutativity(shipped).abs().max(axis=1)
    assert found[1200] > 0.3
    assert found[12000] < 0.01


def test_what_is_undefined_says_so(shipped):
    architecture, weights, _ = example("canonical")
    found = attention(from_weights(weights, architecture, ModularTask("random", P)))
    assert found.shares is None
    assert found.frequencies == ()
    assert found.table()["frequency"].isna().all()
    assert "random" in found.table()["note"][0]
    snapshot = from_weights(weights, architecture, ModularTask("add", P))
    for layer in (1, -1, True):
        with pytest.raises(gi.InputError, match="is not a whole number from 0 to 0"):
            attention(snapshot, layer=layer)
    broken = weights | {"blocks.0.attn.W_Q": weights["blocks.0.attn.W_Q"] * math.nan}
    with pytest.raises(gi.InputError, match="layer 0 is not finite"):
        attention(from_weights(broken, architecture, ModularTask("add", P)), frequencies=[1])


def test_a_users_model_is_left_alone():
    architecture, weights, task = example("two layers")
    model = architecture.hooked(weights)
    before = copy.deepcopy(dict(model.state_dict()))
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    found = attention(model, task=task, layer=1)
    expected = attention(from_weights(weights, architecture, task), layer=1)
    pd.testing.assert_frame_equal(found.table(), expected.table())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
