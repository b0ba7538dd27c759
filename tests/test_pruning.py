import math

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.encodings.pruning import (
    magnitudes,
    n_pruned,
    prune,
    pruning_order,
    scored,
    weight_names,
)

CNN = {
    "conv.0.W": (2, 1, 3, 3), "conv.0.b": (2,), "conv.1.W": (4, 2, 3, 3), "conv.1.b": (4,),
    "blocks.0.mlp.W_in": (64, 100), "blocks.0.mlp.b_in": (100,), "unembed.W_U": (100, 2),
    "unembed.b_U": (2,),
}  # fmt: skip
TRANSFORMER = {
    "embed.W_E": (8, 4), "blocks.0.attn.W_Q": (2, 4, 2), "blocks.0.attn.b_Q": (2, 2),
    "blocks.0.ln1.w": (4,), "blocks.0.ln1.b": (4,), "blocks.0.mlp.W_in": (4, 6),
}  # fmt: skip


def drawn(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_weights_are_matrices_and_kernels_without_biases_and_gains():
    assert weight_names(drawn(CNN)) == [
        "conv.0.W", "conv.1.W", "blocks.0.mlp.W_in", "unembed.W_U",
    ]  # fmt: skip
    assert weight_names(drawn(TRANSFORMER)) == [
        "embed.W_E", "blocks.0.attn.W_Q", "blocks.0.mlp.W_in",
    ]  # fmt: skip
    assert weight_names(drawn(TRANSFORMER), biases=True) == list(TRANSFORMER)


def test_the_number_pruned_rounds_half_up_and_is_exact_for_decimal_fractions():
    assert [n_pruned(5, q) for q in (0.0, 0.1, 0.5, 0.9, 1.0)] == [0, 1, 3, 5, 5]
    for n in (10, 100, 1000):  # i / n times n is not always i in floating point
        assert [n_pruned(n, i / n) for i in range(n + 1)] == list(range(n + 1))
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="not a number from 0 to 1"):
            n_pruned(5, wrong)


def smallest(values, k):
    """Positions of the k smallest of a list, equal ones by position: the definition."""
    return {i for _, i in sorted((value, i) for i, value in enumerate(values))[:k]}


def zeroed(masks):
    """Positions in the concatenation of all tensors that do not stay."""
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    return set((~flat).nonzero().flatten().tolist())


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.37, 0.5, 0.93, 1.0])
def test_every_scope_equals_sorting_its_definition(fraction):
    scores = {name: w.square() for name, w in drawn(CNN).items()}
    each = {name: score.flatten().double().tolist() for name, score in scores.items()}
    every = [value for values in each.values() for value in values]
    norms = {name: math.sqrt(sum(v * v for v in values)) for name, values in each.items()}
    divided = [value / norms[name] for name, values in each.items() for value in values]

    def masks(scope):
        order = pruning_order(scores, scope=scope)
        kept = order.kept(fraction)
        assert {name: mask.shape for name, mask in kept.items()} == {
            name: scores[name].shape for name in kept
        }
        assert order.n_weights == sum(mask.numel() for mask in kept.values())
        return kept

    k = math.floor(fraction * len(every) + 0.5)
    assert zeroed(masks("global")) == smallest(every, k)
    assert zeroed(masks("global_normalized")) == smallest(divided, k)
    by_layer = masks("layer")
    assert set(by_layer) == set(CNN)
    for name, values in each.items():
        expected = smallest(values, math.floor(fraction * len(values) + 0.5))
        assert zeroed({name: by_layer[name]}) == expected
        assert zeroed(masks(name)) == expected
        assert set(masks(name)) == {name}


def test_equal_scores_go_by_position_and_across_tensors_by_name_order():
    scores = {"V": torch.ones(2, 2), "W": torch.ones(40)}
    layer = pruning_order(scores).kept(0.5)
    assert layer["V"].tolist() == [[False, False], [True, True]]
    assert layer["W"].tolist() == [False] * 20 + [True] * 20
    whole = pruning_order(scores, scope="global").kept(0.5)
    assert not whole["V"].any()
    assert whole["W"].tolist() == [False] * 18 + [True] * 22


def test_pruned_fractions_are_nested():
    order = pruning_order(magnitudes(drawn(CNN)), scope="global_normalized")
    before = order.kept(0.0)
    assert all(mask.all() for mask in before.values())
    for i in range(1, 11):
        after = order.kept(i / 10)
        assert all((after[name] <= before[name]).all() for name in after)
        before = after
    assert not any(mask.any() for mask in before.values())


def test_a_tensor_of_zeros_goes_first_when_scores_are_normalized():
    scores = {"zero": torch.zeros(3), "W": torch.tensor([1e-9, 1e-8])}
    kept = pruning_order(scores, scope="global_normalized").kept(0.6)
    assert not kept["zero"].any()
    assert kept["W"].all()


def test_prune_is_exact_at_both_ends_and_leaves_its_argument():
    weights = drawn(TRANSFORMER)
    before = {name: w.clone() for name, w in weights.items()}
    assert all(w is weights[name] for name, w in prune(weights, 0.0).items())
    empty = prune(weights, 1.0)
    for name, weight in empty.items():
        if name in weight_names(weights):
            assert not weight.any()
        else:
            assert weight is weights[name]
    assert not any(w.any() for w in prune(weights, 1.0, biases=True).values())
    half = prune(weights, 0.5)["embed.W_E"]
    assert int((half == 0).sum()) == 16
    assert half[half != 0].abs().min() > weights["embed.W_E"][half == 0].abs().max()
    assert half.dtype == torch.float32
    assert all(torch.equal(w, before[name]) for name, w in weights.items())


def test_given_scores_rank_instead_of_magnitudes():
    weights = {"W": torch.tensor([[3.0, 1.0], [2.0, 0.0]]), "b": torch.ones(2)}
    fisher = {"W": torch.tensor([[0.0, 5.0], [1.0, 9.0]])}
    assert prune(weights, 0.5, scores=fisher)["W"].tolist() == [[0.0, 1.0], [0.0, 0.0]]
    both = fisher | {"b": torch.tensor([1.0, 0.5])}
    assert set(scored({"W": weights["W"]}, both)) == {"W"}
    pruned = prune(weights, 0.5, scores=both, biases=True)
    assert pruned["b"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pruning_order({}), "no scores"),
        (lambda: pruning_order({"W": torch.tensor([1.0, math.nan])}), "'W' hold NaN"),
        (lambda: pruning_order({"W": torch.ones(2)}, scope="layr"), "did you mean 'layer'"),
        (lambda: prune({"W": torch.ones(2, 2)}, 0.5, scores={}), "'W' are missing"),
        (
            lambda: prune({"W": torch.ones(2, 2)}, 0.5, scores={"W": torch.ones(2)}),
            r"shape \(2,\), expected shape \(2, 2\)",
        ),
        (lambda: prune({"W": torch.ones(2, 2)}, 2.0), "not a number from 0 to 1"),
    ],
)
def test_refusals_are_one_line(call, says):
    with pytest.raises(InputError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
