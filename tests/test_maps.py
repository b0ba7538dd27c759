import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.fourier.spectra import input_weights, neuron_logit_map, output_weights
from grokinterp.runs._snapshot import from_weights
from tests.test_neurons import random_model


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_hot(p=5, width=8):
    return {
        "blocks.0.mlp.W_in": draw(2 * p, width),
        "blocks.0.mlp.b_in": draw(width, seed=1),
        "unembed.W_U": draw(width, p, seed=2),
        "unembed.b_U": draw(p, seed=3),
    }


def embedded(p=5, d=3, widths=(8, 6)):
    return {
        "embed.W_E": draw(p, d),
        "blocks.0.mlp.W_in": draw(2 * d, widths[0], seed=1),
        "blocks.1.mlp.W_in": draw(widths[0], widths[1], seed=2),
        "unembed.W_U": draw(widths[1], p, seed=3),
    }


def test_an_mlp_on_one_hot_operands_has_its_rows():
    weights = two_hot()
    found = input_weights(weights, 5)
    assert torch.equal(found[0], weights["blocks.0.mlp.W_in"][:5])
    assert torch.equal(found[1], weights["blocks.0.mlp.W_in"][5:])
    assert torch.equal(output_weights(weights, 5), weights["unembed.W_U"].T)


def test_an_mlp_with_an_embedding_reads_it_in_halves():
    """Pre-activations are the sum of both blocks' rows: [W_E[a], W_E[b]] W_in."""
    weights = embedded()
    found = input_weights(weights, 5)
    assert found.shape == (2, 5, 8)
    for a, b in ((0, 0), (1, 4), (3, 2)):
        x = torch.cat([weights["embed.W_E"][a], weights["embed.W_E"][b]])
        torch.testing.assert_close(found[0, a] + found[1, b], x @ weights["blocks.0.mlp.W_in"])
    assert not torch.allclose(found[0], found[1])
    assert torch.equal(output_weights(weights, 5), weights["unembed.W_U"].T)
    eleven = {f"blocks.{i}.mlp.W_in": draw(8, 8, seed=i) for i in range(1, 11)}
    assert output_weights({**two_hot(), **eleven}, 5).shape == (5, 8)  # layer 10 comes after 9


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_transformer_has_two_maps(n_layers):
    weights, architecture, task = random_model(n_layers)
    direct = input_weights(weights, 7)
    expected = weights["embed.W_E"][:7] @ weights["blocks.0.mlp.W_in"]
    for block in direct:
        torch.testing.assert_close(block, expected)
    attention = input_weights(weights, 7, path="attention")
    expected = sum(
        weights["embed.W_E"][:7]
        @ weights["blocks.0.attn.W_V"][h]
        @ weights["blocks.0.attn.W_O"][h]
        @ weights["blocks.0.mlp.W_in"]
        for h in range(2)
    )
    for block in attention:
        torch.testing.assert_close(block, expected)
    snapshot = from_weights(weights, architecture, task)
    torch.testing.assert_close(output_weights(weights, 7), neuron_logit_map(snapshot).T[:7])
    written = weights[f"blocks.{n_layers - 1}.mlp.W_out"] @ weights["unembed.W_U"]
    torch.testing.assert_close(neuron_logit_map(snapshot), written)


def test_the_attention_map_is_what_uniform_attention_lets_through():
    """With rate 0 every pattern is 1: pre-activations are sums of the two operands' rows."""
    weights, architecture, task = random_model(1, attention_rate=0.0)
    read = input_weights(weights, 7, path="attention")
    pre = from_weights(weights, architecture, task).activation("blocks.0.mlp.hook_pre")
    a, b = task.operands.unbind(1)
    rest = pre - read[0, a] - read[1, b]
    torch.testing.assert_close(rest, rest[:1].expand_as(rest))


def test_maps_are_float64_and_change_nothing():
    weights = {name: w.float() for name, w in embedded().items()}
    before = {name: w.clone() for name, w in weights.items()}
    assert input_weights(weights, 5).dtype == output_weights(weights, 5).dtype == torch.float64
    assert all(torch.equal(w, before[name]) for name, w in weights.items())


def test_other_weights_are_refused():
    ising = {"conv.0.W": draw(2, 1, 3, 3), "blocks.0.mlp.W_in": draw(64, 10)}
    with pytest.raises(InputError, match="64 rows, which is no function of 5 operand tokens"):
        input_weights(ising, 5)
    with pytest.raises(InputError, match="10 rows, which is no function of 6"):
        input_weights(two_hot(), 6)
    with pytest.raises(InputError, match="no function of 6"):
        input_weights(embedded(), 6)  # W_E has 5 rows
    one, other = input_weights(two_hot(), 10)  # as many rows as tokens: both operands read them
    assert torch.equal(one, other)
    with pytest.raises(InputError, match="has no MLP, so no neurons"):
        input_weights({"embed.W_E": draw(5, 3)}, 5)
    with pytest.raises(InputError, match="did you mean 'direct'"):
        input_weights(two_hot(), 5, path="dirct")
    for mlp in (two_hot(), embedded()):
        with pytest.raises(InputError, match="a transformer's"):
            input_weights(mlp, 5, path="attention")
    with pytest.raises(InputError, match=r"unembed.W_U'"):
        output_weights({"blocks.0.mlp.W_in": draw(10, 8)}, 5)
    with pytest.raises(InputError, match=r"shape \(8, 5\), expected 8 neurons and at least 6"):
        output_weights(two_hot(), 6)
    with pytest.raises(InputError, match="expected 9 neurons"):
        output_weights({**two_hot(), "blocks.0.mlp.W_in": draw(10, 9)}, 5)


def test_the_class_of_equals_is_left_out():
    weights = two_hot()
    wider = {**weights, "unembed.W_U": torch.cat([weights["unembed.W_U"], draw(8, 1)], dim=1)}
    assert torch.equal(output_weights(wider, 5), output_weights(weights, 5))
