import json
from copy import copy
from dataclasses import asdict

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.models.cnn import CNNArchitecture, _before_pool, _pool
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.updates import CrossEntropy
from tests.test_mlp import activation as nonlinearity
from tests.test_mlp import autograd, near, sure


def gradients(weights, inputs, labels, *, architecture):
    inputs = inputs.to(weights["conv.0.W"].dtype)
    return architecture.gradients_on(inputs, labels, CrossEntropy())(weights)


PAPER = CNNArchitecture()
SHAPES = [
    CNNArchitecture(lattice, channels, d_mlp=9, n_classes=n_classes, act_fn=act_fn)
    for lattice, channels, n_classes, act_fn in [
        (16, (2, 4), 2, "relu"), (6, (3,), 4, "relu"), (8, (3, 2, 5), 3, "relu"),
        (4, (2, 3), 2, "gelu"), (8, (2, 3), 3, "silu"), (4, (3,), 3, "quadratic"),
    ]
]  # fmt: skip


def random_weights(architecture, dtype=torch.float64):
    """All of them away from zero, biases too."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) / 2
        for name, shape in architecture.parameter_shapes().items()
    }


def spins(n, lattice):
    """Half of them random, half with large domains, where many windows have ties."""
    generator = torch.Generator().manual_seed(4)
    found = torch.randint(0, 2, (n, 1, lattice, lattice), generator=generator).float() * 2 - 1
    found[::2, :, : lattice // 2] = 1
    found[::2, :, lattice // 2 + 1 :, 1:] = -1
    return found


def plain_activations(weights, inputs, architecture):
    """The definition in shifts, sums and slices."""
    found = {}
    x = inputs.double()
    for layer in range(len(architecture.channels)):
        kernel, bias = weights[f"conv.{layer}.W"], weights[f"conv.{layer}.b"]
        side = x.shape[-1]
        padded = torch.zeros(*x.shape[:2], side + 2, side + 2, dtype=x.dtype)
        padded[:, :, 1:-1, 1:-1] = x
        pre = bias[:, None, None] + sum(
            torch.einsum("oi,nirc->norc", kernel[:, :, r, c], shifted)
            for r in range(3)
            for c in range(3)
            for shifted in [padded[:, :, r : r + side, c : c + side]]
        )
        post = nonlinearity(architecture.act_fn)(pre)
        corners = [post[:, :, r::2, c::2] for r in (0, 1) for c in (0, 1)]
        x = torch.stack(corners).max(dim=0).values
        conv = f"conv.{layer}.hook_"
        found |= {f"{conv}pre": pre, f"{conv}post": post, f"{conv}pool": x}
    pre = x.flatten(1) @ weights["blocks.0.mlp.W_in"] + weights["blocks.0.mlp.b_in"]
    post = nonlinearity(architecture.act_fn)(pre)
    found |= {"blocks.0.mlp.hook_pre": pre, "blocks.0.mlp.hook_post": post}
    logits = post @ weights["unembed.W_U"] + weights["unembed.b_U"]
    return found | {"unembed.hook_out": logits}


def test_the_papers_shape():
    assert list(PAPER.parameter_shapes().items()) == [
        ("conv.0.W", (2, 1, 3, 3)), ("conv.0.b", (2,)),
        ("conv.1.W", (4, 2, 3, 3)), ("conv.1.b", (4,)),
        ("blocks.0.mlp.W_in", (64, 100)), ("blocks.0.mlp.b_in", (100,)),
        ("unembed.W_U", (100, 2)), ("unembed.b_U", (2,)),
    ]  # fmt: skip
    assert sum(w.numel() for w in PAPER.initial(seed=0, rule="torch").values()) == 6_798
    assert (PAPER.kind, PAPER.n_layers, TransformerArchitecture.kind) == ("cnn", 1, "transformer")


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_shapes_survive_json(architecture):
    assert CNNArchitecture.from_dict(json.loads(json.dumps(asdict(architecture)))) == architecture
    assert CNNArchitecture.from_dict({}) == PAPER


def made(**change):
    """As `replace(PAPER, **change)` without the tests' own type checks."""
    architecture = copy(PAPER)
    for name, value in change.items():
        object.__setattr__(architecture, name, value)
    architecture.__post_init__()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lattice": 0}, "lattice=0 is not a whole number from 1 to 10000."),
        ({"lattice": 16.0}, "lattice=16.0"),
        ({"lattice": 18}, r"lattice=18 cannot be halved 2 times, .* give a multiple of 4"),
        ({"lattice": 20_000}, "lattice=20000"),
        ({"channels": ()}, r"channels=\(\) is not a tuple"),
        ({"channels": [2, 4]}, r"channels=\[2, 4\] is not a tuple"),
        ({"channels": (2, -4)}, r"channels\[1\]=-4"),
        ({"d_mlp": None}, "d_mlp=None is not a whole number from 1"),
        ({"n_classes": 0}, "n_classes=0"),
        ({"act_fn": "tanh"}, "act_fn='tanh' is not known"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(change, said):
    with pytest.raises(InputError, match=said) as refused:
        made(**change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_the_forward_is_that_of_the_definition(architecture):
    weights, inputs = random_weights(architecture), spins(12, architecture.lattice)
    expected = plain_activations(weights, inputs, architecture)
    cache = {}
    logits = architecture.forward(weights, inputs, cache)
    assert tuple(cache) == architecture.hook_names() == tuple(expected)
    for name, activation in cache.items():
        torch.testing.assert_close(activation, expected[name], rtol=1e-12, atol=1e-12)
    assert torch.equal(logits, cache["unembed.hook_out"])


def test_torch_has_the_bounds_of_conv2d_biases_too():
    shape = CNNArchitecture(lattice=16, channels=(200, 300), d_mlp=100)
    weights = shape.initial(seed=0, rule="torch", scale=10.0)
    for layer, suffix, fan_in in (
        ("conv.0", "", 9), ("conv.1", "", 1800),
        ("blocks.0.mlp", "_in", 300 * 16), ("unembed", "_U", 100),
    ):  # fmt: skip
        for parameter in "Wb":
            w, bound = weights[f"{layer}.{parameter}{suffix}"], 10 / fan_in**0.5
            assert w.abs().max() <= bound
            if w.numel() > 90:
                assert w.abs().max() > 0.95 * bound
                assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)


def test_xavier_counts_the_kernel_in_both_fans():
    shape = CNNArchitecture(lattice=16, channels=(200, 300), d_mlp=100)
    weights = shape.initial(seed=0, rule="xavier", scale=2.0)
    for name, fans in (("conv.0.W", 9 + 1800), ("conv.1.W", 1800 + 2700)):
        assert weights[name].std().item() == pytest.approx(2 * (2 / fans) ** 0.5, rel=0.05)
    assert not any(weights[name].any() for name in weights if ".b" in name)


def test_rules_of_other_kinds_are_refused():
    with pytest.raises(InputError, match="init='gpt2' is not known; valid are: torch, xavier"):
        PAPER.initial(seed=0, rule="gpt2")
    transformer = TransformerArchitecture(1, 2, 8, 4, 16, 8, 7, 3)
    with pytest.raises(InputError, match="init='torch' is not known; valid are: gpt2, paper"):
        transformer.initial(seed=0, rule="torch")


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_written_out_gradients_are_autograds(architecture):
    weights, inputs = random_weights(architecture), spins(40, architecture.lattice)
    labels = torch.randint(
        0, architecture.n_classes, (40,), generator=torch.Generator().manual_seed(1)
    )
    _, expected = autograd(weights, lambda w: architecture.forward(w, inputs), labels)
    near(gradients(weights, inputs, labels, architecture=architecture), expected, 1e-12)
    find = architecture.gradients_on(inputs, labels, CrossEntropy())
    single = {name: w.float().requires_grad_() for name, w in weights.items()}
    for _ in range(2):  # what is kept is not used up
        found = find(single)
        near(found, expected, 1e-5)
    assert not any(g.requires_grad or g.dtype != torch.float32 for g in found.values())


def test_gradients_are_exact_when_the_loss_is_tiny():
    forward = PAPER.forward
    weights = random_weights(PAPER, torch.float32)
    weights, inputs, labels = sure(weights, forward, spins(100, 16), 12)
    loss, expected = autograd(weights, lambda w: forward(w, inputs), labels)
    assert 1e-10 < loss < 1e-8
    exact = {name: w.double() for name, w in weights.items()}
    near(gradients(exact, inputs, labels, architecture=PAPER), expected, 1e-12)
    near(gradients(weights, inputs, labels, architecture=PAPER), expected, 1e-5)


def test_ties_in_a_window_go_where_torch_sends_them():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (2, 8, 6, 50), generator=generator).double()
    upstream = torch.randn(2, 4, 3, 50, generator=generator).double()
    leaf = x.permute(3, 0, 1, 2).clone().requires_grad_()
    pooled = torch.nn.functional.max_pool2d(leaf, 2)
    (expected,) = torch.autograd.grad(pooled, leaf, upstream.permute(3, 0, 1, 2))
    assert torch.equal(_pool(x), pooled.detach().permute(1, 2, 3, 0))
    assert torch.equal(_before_pool(upstream, x), expected.permute(1, 2, 3, 0))


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_the_hooked_model_is_the_same_function(architecture):
    weights, inputs = random_weights(architecture), spins(12, architecture.lattice)
    model = architecture.hooked(weights)
    assert model.cfg == architecture
    assert not model.training
    assert list(model.state_dict()) == list(architecture.parameter_shapes())
    assert set(model.hook_dict) == set(architecture.hook_names())
    logits, cache = model.run_with_cache(inputs)
    expected = plain_activations(weights, inputs, architecture)
    torch.testing.assert_close(logits, expected["unembed.hook_out"], rtol=1e-12, atol=1e-12)
    assert list(cache) == list(expected)
    for name, activation in expected.items():
        torch.testing.assert_close(cache[name], activation, rtol=1e-12, atol=1e-12)


def test_hooks_change_all_that_is_behind_them_and_go_away():
    weights, inputs = random_weights(PAPER), spins(12, 16)
    model = PAPER.hooked(weights)
    plain, plain_cache = model.run_with_cache(inputs)
    names = PAPER.hook_names()
    for place, name in enumerate(names):
        change = [(name, lambda x, hook: 2 * x + 1)]
        with model.hooks(fwd_hooks=change):
            logits, cache = model.run_with_cache(inputs)
        assert torch.equal(model.run_with_hooks(inputs, fwd_hooks=change), logits)
        assert all(torch.equal(cache[x], plain_cache[x]) for x in names[:place])
        assert not any(torch.equal(cache[x], plain_cache[x]) for x in names[place:])
    silent = [("conv.1.hook_pool", lambda x, hook: torch.zeros_like(x))]
    post = weights["blocks.0.mlp.b_in"].relu()
    expected = (post @ weights["unembed.W_U"] + weights["unembed.b_U"]).expand(12, 2)
    torch.testing.assert_close(model.run_with_hooks(inputs, fwd_hooks=silent), expected)
    model.add_hook("conv.0.hook_pre", lambda x, hook: 0 * x)
    assert not torch.equal(model(inputs), plain)
    model.reset_hooks()
    assert torch.equal(model(inputs), plain)
    _, some = model.run_with_cache(inputs, names_filter=["conv.0.hook_pool"])
    assert list(some) == ["conv.0.hook_pool"]
    assert some["conv.0.hook_pool"].shape == (12, 2, 8, 8)
