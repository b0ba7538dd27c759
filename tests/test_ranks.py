"""Effective ranks of matrices, by four definitions, over training."""

import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.encodings import effective_rank, effective_ranks, ranks
from tests.made_runs import changed, made_run

DEFINITIONS = ["entropy_rank", "entropy_rank_squared", "stable_rank", "participation"]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(values, m, n):
    """A matrix of this shape with these singular values, turned on both sides."""
    left, right = (torch.linalg.qr(drawn(k, k, seed=k)).Q for k in (m, n))
    diagonal = torch.zeros(m, n, dtype=torch.float64)
    diagonal[range(len(values)), range(len(values))] = torch.tensor(values).double()
    return left @ diagonal @ right


def of(found, step, matrix):
    table = found.table()
    return table[(table.step == step) & (table.matrix == matrix)].iloc[0]


class TestOneMatrix:
    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_k_equal_values_are_of_rank_k_by_every_definition(self, k):
        found = effective_ranks(with_values([2.5] * k, 7, 9))
        assert list(found) == DEFINITIONS
        assert list(found.values()) == pytest.approx([k] * 4, rel=1e-9)

    def test_the_definitions(self):
        """In numpy, of a spectrum with a tail."""
        values = np.array([5.0, 3.0, 3.0, 1.0, 0.2, 0.01])
        found = effective_ranks(with_values(values.tolist(), 6, 8))
        p, q = values / values.sum(), values**2 / (values**2).sum()
        expected = {
            "entropy_rank": np.exp(-(p * np.log(p)).sum()),
            "entropy_rank_squared": np.exp(-(q * np.log(q)).sum()),
            "stable_rank": (values**2).sum() / values[0] ** 2,
            "participation": 1 / (q**2).sum(),
        }
        assert found == pytest.approx(expected, rel=1e-9)
        assert effective_rank(with_values(values.tolist(), 6, 8)) == found["entropy_rank"]

    def test_their_order_and_that_scale_plays_no_part(self):
        for seed in range(20):
            matrix = drawn(5, 8, seed=seed) @ torch.diag(drawn(8, seed=seed + 99).exp())
            found = effective_ranks(matrix)
            entropy, squared, stable, participation = found.values()
            assert 1 <= stable <= participation <= squared <= entropy <= 5
            for scale in (1e-200, 1e200):  # whose squares are no floats
                assert effective_ranks(scale * matrix.T) == pytest.approx(found, rel=1e-9)
        largest = 1e308 * torch.eye(3, dtype=torch.float64)  # whose sum is no float
        assert list(effective_ranks(largest).values()) == pytest.approx([3] * 4)

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (torch.zeros(2, 3), "matrix of zeros has no effective rank"),
            (torch.tensor([[1.0, math.inf]]), "not finite"),
        ],
    )
    def test_what_has_none(self, matrix, message):
        with pytest.raises(gi.InputError, match=message):
            effective_ranks(matrix)


class TestWhichMatrices:
    def test_those_of_operands_and_answers_alone(self):
        run = gi.load("mod31-small")
        weights = run.weights()
        found = ranks(run, steps=[0, -1])
        assert found.steps == (0, 10_000)
        assert found.matrices == ("W_E", "W_U", "W_in", "W_out", "W_out W_U")
        expected = {
            "W_E": weights["embed.W_E"][:31],  # without the token "="
            "W_U": weights["unembed.W_U"],
            "W_in": weights["blocks.0.mlp.W_in"],
            "W_out": weights["blocks.0.mlp.W_out"],
            "W_out W_U": weights["blocks.0.mlp.W_out"].double() @ weights["unembed.W_U"].double(),
        }
        assert weights["embed.W_E"].shape == (32, 32)
        for name, matrix in expected.items():
            row = of(found, 10_000, name)
            assert row[DEFINITIONS].to_dict() == pytest.approx(effective_ranks(matrix), rel=1e-9)
            assert row.full_rank == min(matrix.shape)

    def test_of_an_mlp_a_cnn_and_a_deeper_model(self, tmp_path):
        assert ranks("mlp113-grokked", steps=[0]).matrices == ("W_U", "W_in")
        assert ranks("ising-grokked", steps=[0]).matrices == ("W_U", "W_in")
        shape = gi.Recipe(p=5, n_layers=2, d_model=8, d_head=4, n_heads=2, d_mlp=6).architecture()
        task = gi.ModularTask("add", p=5)
        deep = made_run(task, shape, {0: shape.initial(seed=0)})
        found = ranks(deep)
        assert found.matrices == (
            "W_E", "W_U", "W_out W_U", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out",
            "blocks.1.mlp.W_in", "blocks.1.mlp.W_out",
        )  # fmt: skip
        last = deep.weights()["blocks.1.mlp.W_out"].double()
        product = last @ deep.weights()["unembed.W_U"].double()
        assert of(found, 0, "W_out W_U").entropy_rank == pytest.approx(effective_rank(product))

    def test_of_a_module_every_matrix_by_its_own_name(self):
        net = torch.nn.Sequential(
            torch.nn.Embedding(5, 4),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 5),
            torch.nn.LayerNorm(5),
        )
        task = gi.ModularTask("add", p=5, equals_token=False)
        assert ranks(net, task=task).matrices == ("0.weight", "2.weight")

    def test_what_is_zero_or_not_finite_has_a_note(self):
        run = gi.load("mod31-small")

        def spoil(weights):
            zero, infinite = "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"
            return weights | {zero: weights[zero] * 0, infinite: weights[infinite] / 0}

        spoilt = changed(run, spoil)
        found = ranks(spoilt, steps=[0])
        for name in ("W_in", "W_out", "W_out W_U"):
            assert of(found, 0, name)[DEFINITIONS].isna().all()
        assert found.notes == (
            "W_in at step 0: a matrix of zeros has no effective rank",
            "W_out at step 0: a matrix with entries that are not finite has no effective rank",
            "W_out W_U at step 0: a matrix with entries that are not finite has no effective rank",
        )
        assert of(found, 0, "W_E").entropy_rank == of(ranks(run, steps=[0]), 0, "W_E").entropy_rank
        assert len(found.plot().data) == 2
        assert "W_in: - of 32" in str(found)
        diverged = ranks(changed(run, spoil), steps=run.steps[:3]).notes  # one a matrix, not a step
        assert diverged[0] == "W_in at step 0 and 2 more: a matrix of zeros has no effective rank"
        assert len(diverged) == 3

    def test_a_model_without_a_matrix_is_refused(self):
        class Table(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.logits = torch.nn.Parameter(torch.zeros(5, 5, 5))

            def forward(self, x):
                return self.logits[x[:, 0], x[:, 1]]

        task = gi.ModularTask("add", p=5, equals_token=False)
        with pytest.raises(gi.InputError, match="no matrices of two axes"):
            ranks(Table(), task=task)


SHIPPED = {  # entropy ranks of the values, and of their squares
    0: {"W_E": (95.0, 72.5), "W_U": (95.1, 72.2), "W_in": (123.6, 112.8), "W_out": (123.5, 112.3),
        "W_out W_U": (92.1, 66.3)},
    5200: {"W_E": (42.0, 23.8), "W_U": (74.2, 40.4), "W_in": (49.6, 28.7), "W_out": (74.9, 39.7),
           "W_out W_U": (39.9, 15.0)},
    6100: {"W_E": (38.4, 20.2), "W_U": (64.4, 27.1), "W_in": (44.1, 23.8), "W_out": (64.7, 26.8),
           "W_out W_U": (26.8, 9.1)},
    12_000: {"W_E": (18.5, 8.5), "W_U": (17.9, 8.1), "W_in": (18.8, 14.1), "W_out": (11.7, 7.9),
             "W_out W_U": (7.91, 7.20)},
}  # fmt: skip


def test_ranks_of_the_shipped_run(shipped):
    """In the end that of W_out W_U is 8, twice four key frequencies; no single matrix at 6100."""
    found = ranks(shipped, steps=list(SHIPPED))
    for step, matrices in SHIPPED.items():
        for name, expected in matrices.items():
            row = of(found, step, name)
            pair = (row.entropy_rank, row.entropy_rank_squared)
            assert pair == pytest.approx(expected, abs=0.06), (step, name)


def test_its_figure():
    found = ranks("mod31-small", steps=[0, 10_000])
    for definition in DEFINITIONS:
        lines = {line.name: line for line in found.plot(definition=definition).data}
        assert list(lines) == list(found.matrices)
        assert lines["W_E"].y[-1] == of(found, 10_000, "W_E")[definition]
    with pytest.raises(gi.InputError, match="definition='rank' is not known"):
        found.plot(definition="rank")
