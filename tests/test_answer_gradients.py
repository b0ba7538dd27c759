"""Explicit gradients of one-layer transformers: autograd in float64 is the oracle."""

import pytest
import torch

import grokinterp as gi
from grokinterp.models import answer_position
from grokinterp.models.answer_position import AnswerForward
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.layers import MIN_ROWS, affine, product_over_rows
from grokinterp.updates import CrossEntropy

VARIANTS = [
    {},
    {"equals_token": False},
    {"equals_class": True, "biases": "all"},
    {"act_fn": "gelu"},
    {"equals_token": False, "act_fn": "silu"},
]


def made(changes, *, scale=2.0, dtype=torch.float64):
    """Weights away from symmetry, every fifth pair of p = 7, and its labels."""
    recipe = gi.Recipe(p=7, d_model=12, n_heads=3, d_head=4, d_mlp=10, **changes)
    weights = recipe.architecture().initial(seed=3, scale=scale)
    generator = torch.Generator().manual_seed(4)
    weights = {
        name: (w + 0.3 * torch.randn(w.shape, generator=generator)).to(dtype)
        for name, w in weights.items()
    }
    task = recipe.build_task()
    return recipe, weights, task.model_inputs[::5], task.labels[::5]


def by_autograd(weights, tokens, labels, **kinds):
    leaves = {name: w.double().requires_grad_() for name, w in weights.items()}
    cross_entropies(AnswerForward(leaves, **kinds)(tokens), labels).mean().backward()
    return {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in leaves.items()}


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("rate", [1.0, 0.25])
@pytest.mark.parametrize("block", [3, 4096])
def test_gradients_are_those_of_autograd(changes, rate, block, monkeypatch):
    monkeypatch.setattr(answer_position, "GRADIENT_ROWS", block)
    recipe, weights, tokens, labels = made(changes)
    kinds = {"act_fn": recipe.act_fn, "attention_rate": rate}
    found = answer_position.gradients(weights, tokens, labels, CrossEntropy(), **kinds)
    expected = by_autograd(weights, tokens, labels, **kinds)
    assert list(found) == list(weights)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
def test_float32_is_norm_wise_right_from_large_losses_to_tiny_ones(scale):
    """On the last checkpoint's kind of logits: right answers lead by 20, or wrong ones by far."""
    _, weights, tokens, labels = made({}, dtype=torch.float32)
    unembed = weights["unembed.W_U"] * scale
    with torch.no_grad():
        labels = AnswerForward({**weights, "unembed.W_U": unembed})(tokens).argmax(dim=1)
    for sign in (1, -1):
        changed = {**weights, "unembed.W_U": sign * unembed}
        found = answer_position.gradients(changed, tokens, labels, CrossEntropy())["unembed.W_U"]
        exact = by_autograd(changed, tokens, labels)["unembed.W_U"]
        assert (found - exact).norm() <= 2e-3 * exact.norm() + 1e-30


def test_weights_are_left_alone():
    _, weights, tokens, labels = made({})
    before = {name: w.clone() for name, w in weights.items()}
    answer_position.gradients(weights, tokens, labels, CrossEntropy())
    for name, w in weights.items():
        assert torch.equal(w, before[name])
        assert w.grad is None
        assert not w.requires_grad


@pytest.mark.parametrize("n_rows", [5, MIN_ROWS, MIN_ROWS + 1, 2 * MIN_ROWS + 3])
@pytest.mark.parametrize(("d_in", "d_out"), [(8, 24), (24, 8)])
def test_products_of_many_rows(n_rows, d_in, d_out):
    """The convolution, its gradient and the single row beside it are plain products."""
    generator = torch.Generator().manual_seed(n_rows)
    x = torch.randn(n_rows, d_in, generator=generator)
    upstream = torch.randn(n_rows, d_out, generator=generator)
    weight, bias = torch.randn(d_in, d_out), torch.randn(d_out)
    exact = x.double().T @ upstream.double()
    assert (product_over_rows(x, upstream) - exact).norm() <= 1e-6 * exact.norm()
    exact = x.double() @ weight.double() + bias.double()
    assert (affine(x, weight, bias) - exact).norm() <= 1e-6 * exact.norm()
    exact = x.double() @ weight.double()
    assert (affine(x, weight) - exact).norm() <= 1e-6 * exact.norm()
