import math

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.encodings.bases import as_matrix, coordinates, token_axes
from grokinterp.fourier import fourier_basis
from grokinterp.tasks import ModularTask

P = 7
TRANSFORMER = {
    "embed.W_E": (P + 1, 5), "pos_embed.W_pos": (3, 5), "blocks.0.attn.W_Q": (2, 5, 3),
    "blocks.0.attn.W_O": (2, 3, 5), "blocks.0.mlp.W_in": (5, 6), "blocks.0.mlp.b_in": (6,),
    "unembed.W_U": (5, P + 1), "unembed.b_U": (P + 1,),
}  # fmt: skip
TWO_HOT = {
    "blocks.0.mlp.W_in": (2 * P, 6), "blocks.0.mlp.b_in": (6,), "unembed.W_U": (6, P),
    "unembed.b_U": (P,),
}  # fmt: skip
LEARNED = {"embed.W_E": (P, 5), "blocks.0.mlp.W_in": (10, 6), "unembed.W_U": (6, P)}
CNN = {"conv.0.W": (2, 1, 3, 3), "conv.0.b": (2,), "blocks.0.mlp.W_in": (64, 10)}
ADD = torch.arange(P)
MULTIPLY = ModularTask("multiply", P).answer_group.tokens  # 1, 3, 2, 6, 4, 5


def drawn(shapes):
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def rotation(tokens, n):
    """The dense orthogonal matrix of one axis: row tokens[i] holds wave i; other rows stay."""
    matrix = torch.eye(n, dtype=torch.float64)
    waves = fourier_basis(len(tokens))
    for i, row in enumerate(tokens.tolist()):
        matrix[row] = 0
        for j, column in enumerate(tokens.tolist()):
            matrix[row, column] = waves[i, j]
    return matrix


@pytest.mark.parametrize("tokens", [ADD, MULTIPLY])
def test_the_fourier_basis_is_the_dense_rotation_of_token_axes(tokens):
    weights = drawn(TRANSFORMER)
    found = coordinates(weights, "fourier", tokens=tokens).values
    R = rotation(tokens, P + 1)
    expected = {
        "embed.W_E": R @ weights["embed.W_E"].double(),
        "unembed.W_U": weights["unembed.W_U"].double() @ R.T,
        "unembed.b_U": R @ weights["unembed.b_U"].double(),
    }
    for name, weight in weights.items():
        if name in expected:
            assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-14)
        else:
            assert found[name] is weight
    assert torch.equal(found["embed.W_E"][P], weights["embed.W_E"][P].double())  # "="
    if tokens is MULTIPLY:
        assert torch.equal(found["embed.W_E"][0], weights["embed.W_E"][0].double())


@pytest.mark.parametrize("tokens", [ADD, MULTIPLY])
def test_two_hot_layers_are_rotated_operand_by_operand(tokens):
    weights = drawn(TWO_HOT)
    found = coordinates(weights, "fourier", tokens=tokens).values["blocks.0.mlp.W_in"]
    R = rotation(tokens, P)
    expected = torch.block_diag(R, R) @ weights["blocks.0.mlp.W_in"].double()
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)


def test_a_learned_embedding_is_rotated_instead_of_the_first_layer():
    assert set(token_axes(drawn(LEARNED), ADD)) == {"embed.W_E", "unembed.W_U"}
    assert set(token_axes(drawn(TWO_HOT), ADD)) == {
        "blocks.0.mlp.W_in", "unembed.W_U", "unembed.b_U",
    }  # fmt: skip


def test_one_wave_of_tokens_is_one_coordinate():
    wave = torch.cos(2 * math.pi * 2 * torch.arange(P) / P)
    found = coordinates({"embed.W_E": wave[:, None]}, "fourier", tokens=ADD).values["embed.W_E"]
    assert found.abs().argmax() == 3  # constant, cos 1, sin 1, cos 2
    assert found[3, 0].item() == pytest.approx(math.sqrt(P / 2), rel=1e-6)
    assert found.abs().sum() == pytest.approx(found[3, 0].item(), rel=1e-5)


@pytest.mark.parametrize("basis", ["weights", "fourier", "singular"])
@pytest.mark.parametrize("shapes", [TRANSFORMER, TWO_HOT, LEARNED], ids=["tf", "two-hot", "mlp"])
def test_every_basis_turns_back(basis, shapes):
    weights = drawn(shapes)
    before = {name: w.clone() for name, w in weights.items()}
    found = coordinates(weights, basis, tokens=MULTIPLY)
    assert set(found.values) == set(found.cost) == set(weights)
    for name, weight in weights.items():
        again = found.restore(name, found.values[name])
        assert again.shape == weight.shape
        error = (again.double() - weight.double()).norm()  # of an orthogonal transform, n eps |W|
        assert error <= max(weight.shape) * torch.finfo(torch.float64).eps * weight.norm()
        assert not found.restore(name, torch.zeros_like(found.values[name])).any()
        if basis == "fourier":  # Parseval
            squares = found.values[name].double().square().sum()
            assert squares.item() == pytest.approx(weight.double().square().sum().item(), rel=1e-12)
    assert all(torch.equal(w, before[name]) for name, w in weights.items())


def test_the_largest_singular_values_are_the_best_approximation():
    """Eckart and Young: the squared error of rank r is the sum of the squares left out."""
    weights = drawn(TRANSFORMER) | drawn(CNN)
    found = coordinates(weights, "singular")
    for name in ("embed.W_E", "blocks.0.attn.W_Q", "blocks.0.attn.W_O", "conv.0.W"):
        values = found.values[name]
        matrix = as_matrix(name, weights[name]).double()
        assert values.shape == (min(matrix.shape),)
        assert (values.diff() <= 0).all()
        assert found.cost[name] == sum(matrix.shape)
        kept = values * (torch.arange(len(values)) < 2)
        cut = found.restore(name, kept)
        assert torch.linalg.matrix_rank(as_matrix(name, cut)) == min(2, len(values))
        error = (cut - weights[name].double()).square().sum()
        assert error.item() == pytest.approx(values[2:].square().sum().item(), abs=1e-12)
    assert found.values["unembed.b_U"] is weights["unembed.b_U"]
    assert found.cost["unembed.b_U"] == 1


def test_matrices_are_the_maps_of_all_heads():
    weights = drawn(TRANSFORMER)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    W_Q, W_O = weights["blocks.0.attn.W_Q"], weights["blocks.0.attn.W_O"]
    queries = torch.einsum("bd,hde->bhe", x, W_Q)
    assert torch.allclose(x @ as_matrix("blocks.0.attn.W_Q", W_Q), queries.flatten(1), atol=1e-6)
    out = torch.einsum("bhe,hed->bd", queries, W_O)
    joined = queries.flatten(1) @ as_matrix("blocks.0.attn.W_O", W_O)
    assert torch.allclose(joined, out, atol=1e-5)
    patch = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    kernel = drawn(CNN)["conv.0.W"]
    convolved = torch.nn.functional.conv2d(patch, kernel).flatten()
    assert torch.allclose(as_matrix("conv.0.W", kernel) @ patch.flatten(), convolved, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: coordinates(drawn(LEARNED), "furier", tokens=ADD), "did you mean 'fourier'"),
        (lambda: coordinates(drawn(CNN), "fourier"), "the task has no tokens"),
        (lambda: coordinates(drawn(CNN), "fourier", tokens=ADD), "has 64 rows, expected 14"),
        (lambda: coordinates({"a.W": torch.ones(2, 2)}, "fourier", tokens=ADD), "no weight is"),
        (
            lambda: coordinates({"unembed.W_U": torch.ones(9, 6)}, "fourier", tokens=ADD),
            "fewer than 7 tokens",
        ),
    ],
)
def test_refusals_are_one_line(call, says):
    with pytest.raises(InputError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
