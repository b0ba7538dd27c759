import subprocess
import sys

import pytest
import torch

from grokinterp.models.answer_position import AnswerForward
from grokinterp.models.kinds import architecture_of
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.transformer_lens_adapter import canonical_weights, load_weights
from grokinterp.tasks import ModularTask
from tests.functional import functional_logits


def example(*, n_layers=1, equals=True, biases=True, act_fn="relu", p=13, d_vocab_out=None):
    """An architecture, weights of realistic size (biases too) and tokens."""
    architecture = TransformerArchitecture(
        n_layers=n_layers, n_heads=4, d_model=32, d_head=8, d_mlp=64, d_vocab=p + equals,
        d_vocab_out=d_vocab_out or p, n_ctx=2 + equals, act_fn=act_fn,
    )  # fmt: skip
    weights = architecture.initial(seed=0, scale=2.0)
    if biases:
        generator = torch.Generator().manual_seed(1)
        for name, weight in weights.items():
            if ".b_" in name:
                weights[name] = 0.3 * torch.randn(weight.shape, generator=generator)
    return architecture, weights, ModularTask("add", p, equals).tokens


VARIANTS = [
    {"equals": equals, "biases": biases, "act_fn": act_fn}
    for equals in (True, False)
    for biases in (True, False)
    for act_fn in ("relu", "gelu")
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_answer_position_equals_the_hooked_forward_in_float64(variant):
    architecture, weights, tokens = example(**variant)
    hooked = functional_logits(architecture.hooked(weights))
    generator = torch.Generator().manual_seed(2)
    upstream = torch.randn(len(tokens), architecture.d_vocab_out, generator=generator).double()
    results = []
    for forward in (lambda w: hooked(w, tokens), lambda w: fast(w, tokens, architecture)):
        leaves = {name: w.double().requires_grad_() for name, w in weights.items()}
        logits = forward(leaves)
        gradients = torch.autograd.grad((logits * upstream).sum(), list(leaves.values()))
        results.append((logits.detach(), gradients))
    (slow_logits, slow), (fast_logits, quick) = results
    torch.testing.assert_close(fast_logits, slow_logits, rtol=1e-10, atol=1e-12)
    total = torch.stack([gradient.norm() for gradient in slow]).norm()
    for name, one, other in zip(weights, slow, quick, strict=True):
        # A key bias adds the same to all scores of a query: its gradient is 0 but for rounding.
        scale = total if name.endswith("b_K") else one.norm()
        assert (one - other).norm() <= 1e-10 * scale, name


def fast(weights, tokens, architecture):
    return AnswerForward(weights, act_fn=architecture.act_fn)(tokens)


def test_float32_is_as_close_to_float64_as_the_hooked_forward(shipped):
    tokens = shipped.task.tokens
    for step in (shipped.steps[1], 5200, shipped.steps[-1]):
        weights = shipped.weights(step)
        exact = AnswerForward({name: w.double() for name, w in weights.items()})(tokens)
        with torch.no_grad():
            hooked = shipped.architecture.hooked(weights)(tokens)[:, -1]
        ours = AnswerForward(weights)(tokens)
        assert (ours - exact).norm() <= 2 * (hooked - exact).norm()


def test_float32_gradients_are_as_close_to_float64_as_hooked_ones(shipped):
    from grokinterp.models.cross_entropy import cross_entropies

    rows = shipped.train_indices
    tokens, labels = shipped.task.tokens[rows], shipped.task.labels[rows]
    weights = shipped.weights(5200)
    hooked = functional_logits(shipped.architecture.hooked(weights))

    def gradient(forward, dtype):
        leaves = {name: w.to(dtype).requires_grad_() for name, w in weights.items()}
        loss = cross_entropies(forward(leaves, tokens), labels).mean()
        found = torch.autograd.grad(loss, list(leaves.values()))
        return torch.cat([g.flatten().double() for g in found])

    def at_answer(weights, tokens):
        return AnswerForward(weights)(tokens)

    exact = gradient(at_answer, torch.float64)
    ours = (gradient(at_answer, torch.float32) - exact).norm()
    theirs = (gradient(hooked, torch.float32) - exact).norm()
    assert ours <= 2 * theirs


@pytest.mark.parametrize("equals", [True, False])
def test_activations_have_their_hook_names_and_values(equals):
    architecture, weights, tokens = example(equals=equals)
    cache = {}
    AnswerForward(weights)(tokens, cache)
    model = architecture.hooked(weights)
    with torch.no_grad():
        _, hooked = model.run_with_cache(tokens)
    for name, ours in cache.items():
        if name.endswith("hook_attn_scores"):
            continue  # TransformerLens 4 keeps the pattern there
        theirs = hooked[name]
        last = theirs[:, :, -1] if name.endswith("hook_pattern") else theirs[:, -1]
        torch.testing.assert_close(ours, last, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_weights_go_in_and_out_unchanged(n_layers):
    architecture, weights, tokens = example(n_layers=n_layers, d_vocab_out=14)
    model = architecture.hooked(weights)
    back = canonical_weights(model)
    assert set(back) == set(weights) == set(architecture.parameter_shapes())
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert architecture_of(model) == architecture
    with torch.no_grad():
        assert torch.equal(functional_logits(model)(weights, tokens), model(tokens)[:, -1])


def test_accessors_have_transformer_lens_shapes():
    architecture, weights, _ = example()
    model = architecture.hooked(weights)
    assert torch.equal(model.W_E, weights["embed.W_E"])
    assert torch.equal(model.W_Q[0], weights["blocks.0.attn.W_Q"])
    assert torch.equal(model.W_O[0], weights["blocks.0.attn.W_O"])
    assert torch.equal(model.W_in[0], weights["blocks.0.mlp.W_in"])
    assert torch.equal(model.W_U, weights["unembed.W_U"])


def test_construction_leaves_global_random_state_alone():
    """In a process of its own: here the type checker draws random numbers."""
    code = """
import random, numpy, torch
from grokinterp.models.transformer import TransformerArchitecture
import transformer_lens
state = lambda: (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate())
before = state()
architecture = TransformerArchitecture(1, 2, 8, 4, 16, 8, 7, 3)
architecture.hooked(architecture.initial(seed=5))
assert state() == before
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_model_with_a_permanent_hook_is_not_plain():
    architecture, weights, _ = example()
    model = architecture.hooked(weights)
    model.hook_dict["blocks.0.mlp.hook_post"].add_hook(lambda x, hook: 0 * x, is_permanent=True)
    assert architecture_of(model) is None


def test_loading_refuses_other_parameters():
    architecture, weights, _ = example()
    model = architecture.hooked(weights)
    weights["blocks.0.extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="extra"):
        load_weights(model, weights)


def test_initial_weights_have_the_published_spread():
    architecture = TransformerArchitecture(1, 4, 128, 32, 512, 114, 114, 3)
    gpt2 = architecture.initial(seed=0)
    paper = architecture.initial(seed=0, rule="paper")
    assert gpt2["blocks.0.mlp.W_out"].std().item() == pytest.approx(0.8 / 128**0.5, rel=0.02)
    assert gpt2["unembed.W_U"].std().item() == pytest.approx(0.8 / 128**0.5, rel=0.02)
    assert paper["blocks.0.mlp.W_out"].std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert paper["unembed.W_U"].std().item() == pytest.approx(114**-0.5, rel=0.02)
    assert sum(w.numel() for n, w in paper.items() if ".b_" not in n or ".mlp." in n) == 226_816
    small = architecture.initial(seed=0, scale=0.1)
    torch.testing.assert_close(small["embed.W_E"], 0.1 * gpt2["embed.W_E"])
