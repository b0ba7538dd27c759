import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import grokinterp as gi
import grokinterp.fourier
from grokinterp.base.errors import InputError
from grokinterp.fourier import (
    AnswerSpectrum,
    fourier_basis,
    gini,
    logit_shares,
    neuron_frequency_fractions,
    spectrum,
    transform,
    transform_2d,
)
from grokinterp.fourier._key_frequencies import RULES, largest_ratio_cut
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import ModularTask
from tests import clock, dense

SIZES = st.integers(2, 40)


@given(SIZES)
def test_the_basis_is_orthonormal(n):
    basis = fourier_basis(n)
    torch.testing.assert_close(basis @ basis.T, torch.eye(n).double(), atol=1e-12, rtol=0)


@given(SIZES)
def test_the_spectrum_merges_the_explicit_coefficients(n):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double()
    squares = transform(x).square()
    merged = torch.zeros(n // 2 + 1, 3).double()
    merged.index_add_(0, (torch.arange(n) + 1) // 2, squares)
    torch.testing.assert_close(spectrum(x), merged)
    torch.testing.assert_close(spectrum(x).sum(0), x.square().sum(0))  # Parseval


@pytest.mark.parametrize("n", [6, 7])
def test_two_dimensional_transform(n):
    x = torch.randn(n, n, 2).double()
    basis = fourier_basis(n)
    expected = torch.einsum("ia,jb,abm->ijm", basis, basis, x)
    torch.testing.assert_close(transform_2d(x), expected)


def test_the_papers_product_of_relu_neurons():
    """ReLU(0.5/sqrt(p) + v_a + v_b), v the unit cos row k = 42, on const, v_a, v_b and v_a v_b.

    Linear terms 0.640 and r squared 0.966, 0.849 without the product (ARENA; 0.640 recomputed for
    the unit row).
    """
    p = 113
    v = fourier_basis(p)[2 * 42 - 1]
    a, b = v[:, None].expand(p, p).flatten(), v[None, :].expand(p, p).flatten()
    y = torch.relu(0.5 / p**0.5 + a + b)

    def fit(*columns):
        matrix = torch.stack([torch.ones_like(a), *columns], dim=1)
        solution = torch.linalg.lstsq(matrix, y[:, None]).solution
        residual = y - (matrix @ solution).flatten()
        return solution.flatten(), 1 - residual.square().sum() / (y - y.mean()).square().sum()

    coefficients, r2 = fit(a, b, a * b)
    _, without = fit(a, b)
    assert coefficients[1].item() == pytest.approx(0.640, abs=1e-3)
    assert r2.item() == pytest.approx(0.966, abs=1e-3)
    assert without.item() == pytest.approx(0.849, abs=1e-3)


@pytest.mark.parametrize(
    ("operation", "p"),
    [("add", 7), ("add", 6), ("add", 2), ("subtract", 9), ("multiply", 7), ("multiply", 11)],
)
def test_projections_equal_the_explicit_directions(operation, p):
    task = ModularTask(operation, p)
    group = task.answer_group
    matrix = torch.randn(task.n_inputs, 4, generator=torch.Generator().manual_seed(0))
    found = AnswerSpectrum.of(matrix, group)
    defined = group.of_input >= 0
    for k in range(1, group.order // 2 + 1):
        basis = dense.directions(group.order, (k,), group.of_input[defined])
        expected = dense.projected(matrix[defined].double(), basis)
        torch.testing.assert_close(found.component([k])[group.of_input[defined]], expected)
        torch.testing.assert_close(found.power()[k - 1], expected.square().sum())
    torch.testing.assert_close(found.mean, matrix[defined].double().mean(0))


def test_gini_is_scale_free_and_ordered():
    x = torch.rand(50)
    assert gini(x) == pytest.approx(gini(7 * x))
    assert gini(torch.ones(50)) == pytest.approx(0)
    assert gini(torch.eye(50)[0]) == pytest.approx(1 - 1 / 50)
    pairs = sum(abs(float(a) - float(b)) for a in x for b in x)  # the pairwise definition
    assert gini(x) == pytest.approx(pairs / (2 * 50**2 * float(x.mean())), rel=1e-4)


@pytest.fixture(scope="module")
def clock_snapshot():
    p, frequencies = 31, (2, 5, 13)
    weights = clock.clock_weights(p, frequencies, amplitude=20.0)
    architecture = clock.clock_architecture(p, 3)
    return from_weights(weights, architecture, ModularTask("add", p))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_the_frequencies_of_clock_weights(rule, clock_snapshot):
    found = gi.key_frequencies(clock_snapshot, rule=rule)
    assert found.frequencies == (2, 5, 13)
    assert all(chosen == (2, 5, 13) for chosen in found.other_rules.values())
    assert list(found) == [2, 5, 13]
    assert 5 in found
    low, high = found.threshold_interval
    assert low < high
    assert found.table()["key"].sum() == 3


def test_clock_logits_have_their_closed_form(clock_snapshot):
    p = 31
    a, b = clock_snapshot.task.operands.double().unbind(1)
    c = torch.arange(p).double()
    expected = sum(
        20 * (math.pi * k * (a - b) / p).cos().abs()[:, None]
        * (2 * math.pi * k * ((a + b)[:, None] - c) / p).cos()
        for k in (2, 5, 13)
    )  # fmt: skip
    error = (clock_snapshot.logits - expected).abs().max() / expected.abs().max()
    # Harmonic m of |cos| is 3 / (m^2 - 1) of the second one; 64 phases alias m = 64 j +- 2.
    assert error < 2 * sum(3 / ((64 * j - 2) ** 2 - 1) for j in range(1, 100))
    assert (clock_snapshot.logits.argmax(1) == clock_snapshot.task.labels).all()


def test_neuron_fractions_equal_the_dense_definition(clock_snapshot):
    p = 31
    post = clock_snapshot.mlp_post
    grid = transform_2d((post - post.mean(0)).double().view(p, p, -1)).square()
    fractions = neuron_frequency_fractions(clock_snapshot)
    for k in (1, 2, 13):
        rows = torch.tensor([0, 2 * k - 1, 2 * k])
        own = grid[rows][:, rows].sum(dim=(0, 1)) / grid.sum(dim=(0, 1))
        torch.testing.assert_close(fractions[:, k - 1], own, rtol=1e-4, atol=1e-6)
    assert fractions.max(1).values.min() > 0.9


def test_shares_do_not_see_a_shift_of_all_logits_of_an_input(clock_snapshot):
    shift = 50 * torch.randn(31 * 31, 1, generator=torch.Generator().manual_seed(0))
    shifted = Snapshot(
        clock_snapshot.task,
        weights={},
        n_layers=1,
        hooked=clock_snapshot.hooked,
        forward=lambda tokens, names: (
            clock_snapshot.logits[tokens[:, 0] * 31 + tokens[:, 1]]
            + shift[tokens[:, 0] * 31 + tokens[:, 1]],
            {},
        ),
    )
    torch.testing.assert_close(
        logit_shares(shifted), logit_shares(clock_snapshot), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("p", [30, 31])
def test_an_untrained_model_has_no_key_frequencies(p):
    recipe = gi.Recipe(p=p)
    weights = recipe.architecture().initial(seed=0)
    found = gi.key_frequencies(from_weights(weights, recipe.architecture(), recipe.build_task()))
    assert found.frequencies == ()
    assert "no sparse circuit" in found.reason
    assert len(found) == 0


@pytest.mark.parametrize("operation", ["x2xyy2", "random"])
def test_a_task_without_directions_has_null(operation):
    recipe = gi.Recipe(p=7, operation=operation)
    weights = recipe.architecture().initial(seed=0)
    snapshot = from_weights(weights, recipe.architecture(), recipe.build_task())
    found = gi.key_frequencies(snapshot)
    assert found.frequencies is None
    assert operation in found.reason
    with pytest.raises(InputError, match=operation):
        logit_shares(snapshot)


def test_key_frequencies_of_the_shipped_run(shipped):
    found = gi.key_frequencies(shipped)
    assert len(found) >= 3
    assert found.kept_share > 0.9
    shares = gi.fourier.frequency_shares(shipped)
    for k, step in found.emerged.items():
        held = [s for s in shipped.steps if shares.loc[s, k] >= shares.loc[12_000, k] / 2]
        assert step == min(held)
    assert set(found.emerged) == set(found)
    assert all(chosen == found.frequencies for chosen in found.other_rules.values())
    of_model = gi.key_frequencies(shipped.model(), task=shipped.task)
    assert of_model.frequencies == found.frequencies
    assert gi.key_frequencies(shipped.snapshot(0)).frequencies == ()


def test_bad_arguments_are_refused(shipped):
    with pytest.raises(InputError, match="did you mean 'logits'"):
        gi.key_frequencies(shipped, rule="logit")
    with pytest.raises(InputError, match="a model needs its task"):
        gi.key_frequencies(shipped.model())


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30))
def test_a_cut_keeps_the_largest_shares(values):
    shares = torch.tensor(values) / sum(values)
    choice = largest_ratio_cut(shares, "power")
    if choice.frequencies:
        kept = shares[torch.tensor(choice.frequencies) - 1]
        assert kept.sum() >= 0.5 - 1e-6
        dropped = np.delete(shares.numpy(), np.array(choice.frequencies) - 1)
        assert dropped.size == 0 or kept.min() >= dropped.max()
    else:
        assert choice.reason


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
def test_key_frequencies_of_a_model_in_half_precision(dtype):
    run = gi.load("mod31-small")
    halves = {name: weight.to(dtype) for name, weight in run.weights().items()}
    found = gi.key_frequencies(run.architecture.hooked(halves), task=run.task)
    assert tuple(found) == tuple(gi.key_frequencies(run.model(), task=run.task)) != ()
