import json
import subprocess
import sys
from copy import copy
from dataclasses import asdict

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.layers import mean_loss_gradient
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.updates import CrossEntropy

PAPER = MLPArchitecture(p=113, widths=(512,), n_classes=113)
SUM, SEPARATE = {"combine": "sum"}, {"separate": True}
SHAPES = [
    MLPArchitecture(p=7, widths=widths, n_classes=5, d_embed=d_embed, act_fn=act_fn, **more)
    for widths, d_embed, act_fn, more in [
        ((16,), 0, "relu", {}), ((12, 9), 0, "gelu", {}), ((8, 10, 6), 3, "relu", {}),
        ((11,), 4, "silu", {}), ((9,), 0, "quadratic", {}), ((10, 6), 0, "relu", SUM),
        ((9,), 4, "quadratic", SUM), ((8, 6), 3, "gelu", SEPARATE),
        ((11,), 4, "relu", SUM | SEPARATE),
    ]
]  # fmt: skip


def random_weights(architecture, dtype=torch.float64):
    """All of them away from zero, biases too."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) / 2
        for name, shape in architecture.parameter_shapes().items()
    }


def gradients(weights, inputs, labels, *, architecture):
    return architecture.gradients_on(inputs, labels, CrossEntropy())(weights)


def pairs(p):
    return torch.cartesian_prod(torch.arange(p), torch.arange(p))


def activation(name):
    """Torch's own module of a nonlinearity."""
    functional = torch.nn.functional
    return {
        "relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu,
        "quadratic": lambda x: x * x,
    }[name]  # fmt: skip


def dense_activations(weights, inputs, architecture):
    """The definition: a one-hot vector a operand, or its embedding, through torch's linear."""
    found = {}
    one_hot = torch.nn.functional.one_hot(inputs, architecture.p).double()
    first, second = one_hot[:, 0], one_hot[:, 1]
    if architecture.d_embed:
        names = ("embed_a", "embed_b") if architecture.separate else ("embed", "embed")
        first, second = (
            x @ weights[f"{name}.W_E"] for x, name in zip((first, second), names, strict=True)
        )
        found["hook_embed"] = torch.stack([first, second], dim=1)
    x = first + second if architecture.combine == "sum" else torch.cat([first, second], dim=1)
    for layer in range(len(architecture.widths)):
        block = f"blocks.{layer}.mlp."
        pre = torch.nn.functional.linear(x, weights[f"{block}W_in"].T, weights[f"{block}b_in"])
        x = activation(architecture.act_fn)(pre)
        found |= {f"{block}hook_pre": pre, f"{block}hook_post": x}
    linear = torch.nn.functional.linear(x, weights["unembed.W_U"].T, weights["unembed.b_U"])
    return found | {"unembed.hook_out": linear}


def test_the_papers_shape():
    assert PAPER.parameter_shapes() == {
        "blocks.0.mlp.W_in": (226, 512), "blocks.0.mlp.b_in": (512,),
        "unembed.W_U": (512, 113), "unembed.b_U": (113,),
    }  # fmt: skip
    assert sum(w.numel() for w in PAPER.initial(seed=0, rule="torch").values()) == 174_193
    assert (PAPER.kind, PAPER.n_layers) == ("mlp", 1)
    deep = MLPArchitecture(p=7, widths=(8, 10), n_classes=5, d_embed=3)
    assert list(deep.parameter_shapes().items()) == [
        ("embed.W_E", (7, 3)),
        ("blocks.0.mlp.W_in", (6, 8)), ("blocks.0.mlp.b_in", (8,)),
        ("blocks.1.mlp.W_in", (8, 10)), ("blocks.1.mlp.b_in", (10,)),
        ("unembed.W_U", (10, 5)), ("unembed.b_U", (5,)),
    ]  # fmt: skip
    assert deep.n_layers == 2


@pytest.mark.parametrize("architecture", [PAPER, *SHAPES], ids=str)
def test_shapes_survive_json(architecture):
    assert MLPArchitecture.from_dict(json.loads(json.dumps(asdict(architecture)))) == architecture
    assert MLPArchitecture.from_dict({"kind": "mlp", **asdict(architecture)}) == architecture


def made(**change):
    """As `replace(PAPER, **change)` without the tests' own type checks."""
    architecture = copy(PAPER)
    for name, value in change.items():
        object.__setattr__(architecture, name, value)
    architecture.__post_init__()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p": 0}, "p=0 is not a whole number from 1 to 1000000."),
        ({"p": True}, "p=True"),
        ({"p": 7.0}, "p=7.0"),
        ({"n_classes": 1_000_001}, "n_classes=1000001"),
        ({"d_embed": -1}, "d_embed=-1 is not a whole number from 0 to 1000000."),
        ({"widths": ()}, r"widths=\(\) is not a tuple of 1 to 1000 sizes"),
        ({"widths": (8,) * 1001}, "widths=.*not a tuple of 1 to 1000"),
        ({"widths": 8}, "widths=8 is not a tuple"),
        ({"widths": (8, 0)}, r"widths\[1\]=0 is not a whole number from 1"),
        ({"widths": (8, "9")}, r"widths\[1\]='9'"),
        (
            {"act_fn": "tanh"},
            "act_fn='tanh' is not known; valid are: relu, gelu, gelu_new, silu, quadratic.",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(change, said):
    with pytest.raises(InputError, match=said) as refused:
        made(**change)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 160


def test_how_operands_come_in_says_how_wide_the_first_layer_is():
    def shapes(**more):
        shape = MLPArchitecture(p=7, widths=(8,), n_classes=7, **more).parameter_shapes()
        return {name: size for name, size in shape.items() if name.endswith(("W_E", "W_in"))}

    tables = {"embed_a.W_E": (7, 3), "embed_b.W_E": (7, 3)}
    assert shapes(**SUM) == {"blocks.0.mlp.W_in": (7, 8)}
    assert shapes(d_embed=3, **SUM) == {"embed.W_E": (7, 3), "blocks.0.mlp.W_in": (3, 8)}
    assert shapes(d_embed=3, **SEPARATE) == tables | {"blocks.0.mlp.W_in": (6, 8)}
    assert shapes(d_embed=3, **SUM, **SEPARATE) == tables | {"blocks.0.mlp.W_in": (3, 8)}
    with pytest.raises(InputError, match="separate=true is for learned embeddings"):
        shapes(**SEPARATE)
    with pytest.raises(InputError, match="combine='product' is not known; valid are: concat, sum"):
        shapes(combine="product")


def test_what_version_0_2_0_reads_is_written_as_it_was():
    stored = PAPER.to_dict()
    assert stored == {
        "kind": "mlp", "p": 113, "widths": (512,), "n_classes": 113, "d_embed": 0,
        "act_fn": "relu",
    }  # fmt: skip
    assert MLPArchitecture.from_dict(stored) == PAPER
    for one in SHAPES:
        stored = one.to_dict()
        assert MLPArchitecture.from_dict(json.loads(json.dumps(stored))) == one
        assert ("combine" in stored) == (one.combine == "sum")
        assert ("separate" in stored) == one.separate


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_squares_of_gradients_are_those_of_the_jacobian(architecture):
    weights, inputs = random_weights(architecture), pairs(architecture.p)

    def one_hot(logits):
        return torch.eye(5).double()[:, None].expand(5, *logits.shape)

    found = architecture.squares_of_gradients(weights, inputs, one_hot)
    jacobian = torch.func.jacrev(lambda w: architecture.forward(w, inputs))(weights)
    assert set(found) == set(weights)
    for name, part in jacobian.items():
        expected = part.square().sum(dim=(0, 1))
        torch.testing.assert_close(found[name], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("architecture", SHAPES[4:], ids=str)
def test_members_side_by_side_are_single_ones(architecture):
    singles = [architecture.initial(seed=seed) for seed in (0, 1, 2)]
    together = {name: torch.stack([each[name] for each in singles]) for name in singles[0]}
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, architecture.p, (3, 20, 2), generator=generator)
    labels = torch.randint(0, architecture.n_classes, (3, 20), generator=generator)
    logits = architecture.forward(together, inputs)
    found = gradients(together, inputs, labels, architecture=architecture)
    for member, weights in enumerate(singles):
        torch.testing.assert_close(logits[member], architecture.forward(weights, inputs[member]))
        alone = gradients(weights, inputs[member], labels[member], architecture=architecture)
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name][member], gradient, rtol=1e-4, atol=1e-7)


def test_weights_of_another_shape_are_refused():
    weights = random_weights(PAPER)
    PAPER.check(weights)
    with pytest.raises(InputError, match=r"b_U.* of shape \(113,\) is missing"):
        PAPER.check({name: w for name, w in weights.items() if name != "unembed.b_U"})
    with pytest.raises(InputError, match=r"W_E' does not belong to MLPArchitecture\(p=113"):
        PAPER.check(weights | {"embed.W_E": torch.zeros(113, 2)})
    with pytest.raises(InputError, match=r"has shape \(512, 226\), expected \(226, 512\)"):
        PAPER.check(weights | {"blocks.0.mlp.W_in": weights["blocks.0.mlp.W_in"].T})


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_the_forward_is_that_of_the_definition(architecture):
    weights, inputs = random_weights(architecture), pairs(architecture.p)
    expected = dense_activations(weights, inputs, architecture)
    cache = {}
    logits = architecture.forward(weights, inputs, cache)
    assert tuple(cache) == architecture.hook_names() == tuple(expected)
    for name, activation in cache.items():
        torch.testing.assert_close(activation, expected[name], rtol=1e-12, atol=1e-12)
    assert torch.equal(logits, cache["unembed.hook_out"])


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_autograd_goes_through_the_forward(architecture):
    leaves = {name: w.requires_grad_() for name, w in random_weights(architecture).items()}
    inputs = pairs(architecture.p)[:20]
    upstream = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double()
    ours = architecture.forward(leaves, inputs)
    dense = dense_activations(leaves, inputs, architecture)["unembed.hook_out"]
    gradients = [
        torch.autograd.grad((x * upstream).sum(), list(leaves.values())) for x in (ours, dense)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_many_rows_in_float32_are_near_float64():
    weights, inputs = random_weights(PAPER), pairs(113)
    exact = PAPER.forward(weights, inputs)
    single = {name: w.float() for name, w in weights.items()}
    assert (PAPER.forward(single, inputs) - exact).norm() < 1e-6 * exact.norm()


@pytest.mark.parametrize("pair", [[7, 0], [0, 7], [-1, 0], [0, -1]])
@pytest.mark.parametrize("architecture", SHAPES[:3:2], ids=str)
def test_an_operand_that_is_none_reads_no_other_row(pair, architecture):
    with pytest.raises(IndexError):
        architecture.forward(random_weights(architecture), torch.tensor([pair]))


def test_xavier_has_its_spread_and_the_multiplier():
    weights = PAPER.initial(seed=0, rule="xavier", scale=10.0)
    assert not weights["blocks.0.mlp.b_in"].any()
    assert not weights["unembed.b_U"].any()
    for name, fans in (("blocks.0.mlp.W_in", 226 + 512), ("unembed.W_U", 512 + 113)):
        w = weights[name]
        assert w.std().item() == pytest.approx(10 * (2 / fans) ** 0.5, rel=0.01)
        assert (w.abs() > 2 * w.std()).float().mean().item() == pytest.approx(0.0455, abs=0.003)
    one = PAPER.initial(seed=0, rule="xavier")
    torch.testing.assert_close(weights["unembed.W_U"], 10 * one["unembed.W_U"])
    other = PAPER.initial(seed=1, rule="xavier")
    assert not torch.equal(one["unembed.W_U"], other["unembed.W_U"])


def test_torch_has_the_bounds_of_linear_biases_too():
    weights = PAPER.initial(seed=0, rule="torch", scale=0.1)
    for layer, fan_in in (("blocks.0.mlp.{}_in", 226), ("unembed.{}_U", 512)):
        for parameter in "Wb":
            w, bound = weights[layer.format(parameter)], 0.1 / fan_in**0.5
            assert 0.95 * bound < w.abs().max() <= bound
            assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_an_embedding_is_initialised_as_others_do():
    shape = MLPArchitecture(p=113, widths=(8,), n_classes=113, d_embed=64)
    drawn = {
        rule: shape.initial(seed=0, rule=rule, scale=3.0)["embed.W_E"].std().item()
        for rule in ("torch", "xavier")
    }
    assert drawn["torch"] == pytest.approx(3.0, rel=0.03)
    assert drawn["xavier"] == pytest.approx(3 * (2 / 177) ** 0.5, rel=0.03)


def test_rules_of_other_kinds_are_refused():
    with pytest.raises(InputError, match="init='paper' is not known; did you mean 'xavier'"):
        PAPER.initial(seed=0, rule="paper")
    with pytest.raises(InputError, match="'xavjer' is not known; did you mean 'xavier'"):
        PAPER.initial(seed=0, rule="xavjer")


def autograd(weights, forward, labels):
    """The exact mean cross-entropy and its gradients, through autograd in float64."""
    leaves = {name: w.detach().double().requires_grad_() for name, w in weights.items()}
    loss = cross_entropies(forward(leaves), labels).mean()
    found = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), dict(zip(leaves, found, strict=True))


def near(found, expected, relative):
    """Every gradient's error against its norm."""
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm(), name


def sure(weights, forward, inputs, n, lead=19.0):
    """Weights that answer n inputs with at least this lead, the inputs, and what they answer.

    Inputs of nearly equal lead: their logits stay small, and so does the rounding of these.
    """
    best = forward(weights, inputs).topk(2).values
    margin = best[:, 0] - best[:, 1]
    chosen = inputs[margin.argsort()[-n:]]
    scale = lead / margin.sort().values[-n]
    scaled = weights | {name: weights[name] * scale for name in ("unembed.W_U", "unembed.b_U")}
    return scaled, chosen, forward(scaled, chosen).argmax(1)


@pytest.mark.parametrize("architecture", [PAPER, *SHAPES], ids=str)
def test_written_out_gradients_are_autograds(architecture):
    weights = random_weights(architecture)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, architecture.p, (64, 2), generator=generator)
    labels = torch.randint(0, architecture.n_classes, (64,), generator=generator)
    before = {name: w.clone() for name, w in weights.items()}
    found = gradients(weights, inputs, labels, architecture=architecture)
    _, expected = autograd(
        weights,
        lambda w: dense_activations(w, inputs, architecture)["unembed.hook_out"],
        labels,
    )
    near(found, expected, 1e-12)
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    leaves = {name: w.requires_grad_() for name, w in weights.items()}
    assert not gradients(leaves, inputs, labels, architecture=architecture)[
        "unembed.b_U"
    ].requires_grad
    single = {name: w.detach().float() for name, w in weights.items()}
    in_single = gradients(single, inputs, labels, architecture=architecture)
    assert in_single["unembed.W_U"].dtype == torch.float32
    near(in_single, expected, 1e-5)


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_gradients_are_exact_when_the_loss_is_tiny(architecture):
    weights = random_weights(architecture, torch.float32)
    forward = architecture.forward
    weights, inputs, labels = sure(weights, forward, pairs(architecture.p), 6)
    loss, expected = autograd(weights, lambda w: forward(w, inputs), labels)
    assert 1e-10 < loss < 1e-8
    exact = {name: w.double() for name, w in weights.items()}
    near(gradients(exact, inputs, labels, architecture=architecture), expected, 1e-12)
    near(gradients(weights, inputs, labels, architecture=architecture), expected, 1e-5)


def test_the_gradient_by_logits_is_exact_in_float32():
    logits = torch.tensor([[21.0, 0.5, -3.0], [0.0, 1e4, 0.0], [1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 0, 2])
    leaf = logits.double().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropies(leaf, labels).mean(), leaf)
    torch.testing.assert_close(
        mean_loss_gradient(logits, labels).double(), expected, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_the_hooked_model_is_the_same_function(architecture):
    weights, inputs = random_weights(architecture), pairs(architecture.p)
    model = architecture.hooked(weights)
    assert model.cfg == architecture
    assert not model.training
    assert list(model.state_dict()) == list(architecture.parameter_shapes())
    assert set(model.hook_dict) == set(architecture.hook_names())
    cache = {}
    logits = architecture.forward(weights, inputs, cache)
    hooked, hooked_cache = model.run_with_cache(inputs)
    torch.testing.assert_close(hooked, logits, rtol=1e-12, atol=1e-12)
    assert list(hooked_cache) == list(architecture.hook_names())
    for name, activation in cache.items():
        torch.testing.assert_close(hooked_cache[name], activation, rtol=1e-12, atol=1e-12)
    single = architecture.hooked(random_weights(architecture, torch.float32))
    assert single(inputs).dtype == torch.float32


@pytest.mark.parametrize("architecture", SHAPES, ids=str)
def test_hooks_change_all_that_is_behind_them_and_go_away(architecture):
    weights, inputs = random_weights(architecture), pairs(architecture.p)[:10]
    model = architecture.hooked(weights)
    plain, plain_cache = model.run_with_cache(inputs)
    names = architecture.hook_names()
    for place, name in enumerate(names):
        change = [(name, lambda x, hook: 2 * x + 1)]
        with model.hooks(fwd_hooks=change):
            logits, cache = model.run_with_cache(inputs)
        assert torch.equal(model.run_with_hooks(inputs, fwd_hooks=change), logits)
        assert all(torch.equal(cache[x], plain_cache[x]) for x in names[:place])
        assert torch.equal(cache[name], 2 * plain_cache[name] + 1)
        assert not any(torch.equal(cache[x], plain_cache[x]) for x in names[place:])
        # Downstream is what the definition says about the changed activation.
        if name == f"blocks.{architecture.n_layers - 1}.mlp.hook_post":
            expected = cache[name] @ weights["unembed.W_U"] + weights["unembed.b_U"]
            torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    model.add_hook(names[0], lambda x, hook: 0 * x)
    assert not torch.equal(model(inputs), plain)
    model.reset_hooks()
    assert torch.equal(model(inputs), plain)
    _, some = model.run_with_cache(inputs, names_filter=lambda name: name.endswith("hook_post"))
    assert list(some) == [name for name in names if name.endswith("hook_post")]


def test_a_built_model_has_copies_and_leaves_random_state_alone():
    weights = random_weights(SHAPES[0])
    before = torch.get_rng_state()
    model = SHAPES[0].hooked(weights)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        model.state_dict()["unembed.b_U"].zero_()
    assert weights["unembed.b_U"].any()
    with pytest.raises(InputError, match="missing"):
        SHAPES[0].hooked({})


def test_only_a_hooked_model_needs_transformer_lens():
    code = """
import sys
import grokinterp.models.cnn, grokinterp.models.mlp, grokinterp.models.architecture
assert "transformer_lens" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
