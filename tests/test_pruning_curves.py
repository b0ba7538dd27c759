import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.ablation import Score, score
from grokinterp.encodings import PruningCurve, prune, pruning_curve
from grokinterp.encodings.bases import as_matrix
from grokinterp.encodings.pruning_curves import GRID
from grokinterp.fourier import fourier_basis
from grokinterp.geometry import fisher_diagonal
from grokinterp.models import transformer_lens_adapter
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from grokinterp.tasks.operations import OPERATIONS, Operation
from tests import models_of_users

W_E, W_U = "embed.W_E", "unembed.W_U"


@pytest.fixture(autouse=True)
def second_operand(monkeypatch):
    """A task whose answer is b."""
    found = Operation("second", lambda a, b, p: b, None, False)
    monkeypatch.setitem(OPERATIONS, "second", found)


def linear_model(embed, unembed, *, seen_through=None, train_mask=None):
    """A transformer whose logits are embed[b] @ unembed: everything else is zero."""
    p, d_model = embed.shape
    architecture = TransformerArchitecture(
        n_layers=1, n_heads=1, d_model=d_model, d_head=1, d_mlp=1, d_vocab=p, d_vocab_out=p,
        n_ctx=2,
    )  # fmt: skip
    weights = {name: torch.zeros(shape) for name, shape in architecture.parameter_shapes().items()}
    weights |= {W_E: embed, W_U: unembed}
    task = ModularTask("second", p, equals_token=False)
    if seen_through is not None:  # no operation may declare a group that its labels contradict
        vars(task)["answer_group"] = ModularTask(seen_through, p).answer_group
    return from_weights(weights, architecture, task, train_mask=train_mask)


@pytest.fixture
def sparse():
    """5 of the 25 weights of W_E and W_U are needed, one a token, token 4 the smallest.

    Without its weight a token has logits 0, which is answer 0: right for token 0 only. Of the 25
    pairs the 5 with b = 4 are trained on.
    """
    diagonal = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    return linear_model(diagonal, diagonal, train_mask=torch.arange(25) % 5 == 4)


BREAKS = [0.0, 0.8, 0.84, 0.88, 0.92, 0.96, 1.0]  # 20 zeros, then a token each


def test_a_model_of_known_sparsity_has_its_exact_compressibility(sparse):
    curve = pruning_curve(sparse, fractions=BREAKS)
    # Removed in the order 4, 3, 2, 1, 0; token 0 stays right.
    assert curve.acc_train.tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert curve.acc_test.tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0.25]
    assert curve.acc_all.tolist() == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0.2], rel=1e-15)
    lost = 0.04 * (0.25 + 0.5 + 0.75 + 0.75 / 2)
    assert curve.rows == "test"
    assert 1 - curve.area == pytest.approx(lost, rel=1e-12)
    assert curve.c == pytest.approx(1 / lost, rel=1e-12)
    assert curve.prunable == 0.84
    assert curve.weights_needed == pytest.approx(0.16)
    assert curve.loss_all[-1] == pytest.approx(math.log(5), rel=1e-12)
    assert curve.loss_test[-1] == pytest.approx(math.log(5), rel=1e-12)
    # In every layer: W_E and W_U 25 each, W_pos 10, the heads 4 times 5, the MLP 2 times 5.
    assert curve.n_weights == 90
    assert curve.kept[0] == 90
    assert curve.kept[1] == 5 + 5 + 2 + 4 * 1 + 2 * 1
    assert curve.kept[-1] == 0
    assert torch.equal(curve.kept, curve.parameters)
    assert pruning_curve(sparse, fractions=BREAKS, keep=0.75).prunable == 0.88
    assert pruning_curve(sparse, fractions=BREAKS, keep=0.76).prunable == 0.84


def test_one_tensor_alone_and_all_together(sparse):
    one = pruning_curve(sparse, fractions=BREAKS, scope=W_U)
    assert one.n_weights == 25
    assert one.acc_test.tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0.25]
    # All 90: the ten that matter go last, in pairs of equal magnitude.
    together = pruning_curve(sparse, fractions=[0, 80 / 90, 82 / 90, 84 / 90, 1], scope="global")
    assert together.kept.tolist() == [90, 10, 8, 6, 0]
    assert together.acc_all.tolist() == pytest.approx([1, 1, 0.8, 0.6, 0.2], rel=1e-15)
    assert together.acc_test.tolist() == [1, 1, 1, 0.75, 0.25]


def test_without_a_split_all_inputs_are_measured_and_it_says_so(sparse):
    whole = linear_model(sparse.weights[W_E], sparse.weights[W_U])
    curve = pruning_curve(whole, fractions=BREAKS)
    assert curve.rows == "all"
    assert curve.acc_test.isnan().all()
    assert torch.equal(curve.accuracy, curve.acc_all)
    lost = 0.04 * (0.2 + 0.4 + 0.6 + 0.8 + 0.8 / 2)
    assert curve.c == pytest.approx(1 / lost, rel=1e-12)
    everything = linear_model(
        sparse.weights[W_E], sparse.weights[W_U], train_mask=torch.ones(25, dtype=torch.bool)
    )
    assert pruning_curve(everything, fractions=[0, 1]).rows == "all"


def test_given_scores_and_functions_of_the_snapshot(sparse):
    def reversed_magnitude(snapshot):
        return {name: -w.abs() for name, w in snapshot.weights.items()}

    curve = pruning_curve(sparse, fractions=[0, 0.04, 1], scores=reversed_magnitude)
    assert curve.score == "reversed_magnitude"
    assert curve.acc_test.tolist() == [1, 1, 0.25]  # token 0 goes first
    given = pruning_curve(
        sparse, fractions=[0, 0.08, 1], scores=reversed_magnitude(sparse), scope=W_E
    )
    assert given.score == "given"
    assert given.acc_test.tolist() == [1, 0.75, 0.25]


@pytest.mark.parametrize("variant", ["softmax", "logits"])
def test_fisher_scores_have_names_and_say_what_they_are_of(variant, tiny_run):
    grid = [0, 0.3, 0.6, 1]
    name = f"fisher_{variant}"
    found = pruning_curve(tiny_run, scores=name, fractions=grid)
    values = fisher_diagonal(tiny_run.snapshot(), variant=variant, n_samples=None).values
    n_test = int((~tiny_run.train_mask).sum())
    assert n_test < 256
    given = pruning_curve(tiny_run, scores=values, fractions=grid)
    assert torch.equal(found.loss_all, given.loss_all)
    assert not torch.equal(found.loss_all, pruning_curve(tiny_run, fractions=grid).loss_all)
    assert (found.score, found.score_rows, found.score_samples) == (name, "test", n_test)
    assert (given.score, given.score_rows, given.score_samples) == ("given", None, None)
    assert found.table().attrs["score_samples"] == n_test

    def on_train(snapshot):
        return fisher_diagonal(snapshot, variant=variant, rows="train", n_samples=5)

    one = pruning_curve(tiny_run, scores=on_train(tiny_run.snapshot()), fractions=grid)
    other = pruning_curve(tiny_run, scores=on_train, fractions=grid)
    assert torch.equal(one.loss_all, other.loss_all)
    assert (one.score, other.score) == (name, "on_train")
    for curve in (one, other):
        assert (curve.score_rows, curve.score_samples) == ("train", 5)
    unsplit = gi.snapshot(tiny_run.model(), tiny_run.task)
    assert pruning_curve(unsplit, scores=name, fractions=[0, 1]).score_rows == "all"


@pytest.mark.parametrize("group", ["add", "multiply", None])
def test_weights_sparse_in_the_fourier_basis_of_the_task(group):
    p = 7
    order = (
        ModularTask("multiply", p).answer_group.tokens if group == "multiply" else torch.arange(p)
    )
    waves = torch.zeros(p, p, dtype=torch.float64)
    waves[: len(order), order] = fourier_basis(len(order))
    if len(order) < p:
        waves[-1, 0] = 1  # token 0 has no exponent and stays as it is
    model = linear_model(waves.T.float(), waves.float(), seen_through=group)
    grid = [0, 0.2, 0.4, 0.6, 6 / 7, 1]
    rotated = pruning_curve(model, basis="fourier", fractions=grid)
    assert rotated.prunable == 6 / 7  # 7 of 49 coordinates are not zero
    assert rotated.basis == "fourier"
    assert torch.equal(rotated.parameters, rotated.kept)
    stored = pruning_curve(model, fractions=grid)
    assert stored.prunable < 6 / 7
    assert rotated.loss_all[:5].tolist() == pytest.approx(
        [float(rotated.loss_all[0])] * 5, rel=1e-6
    )


def test_singular_values_are_pruned_and_their_vectors_counted(tiny_run):
    snapshot = tiny_run.snapshot()
    name = "blocks.0.mlp.W_in"  # [16, 32]
    curve = pruning_curve(snapshot, basis="singular", scope=name, fractions=[0, 0.25, 0.75, 1])
    assert curve.n_weights == 16
    assert curve.kept.tolist() == [16, 12, 4, 0]
    assert curve.parameters.tolist() == [48 * kept for kept in (16, 12, 4, 0)]
    u, s, vh = torch.linalg.svd(snapshot.weights[name].double(), full_matrices=False)
    for i, rank in enumerate(curve.kept.tolist()):
        cut = (u[:, :rank] * s[:rank] @ vh[:rank]).float()
        expected = score(snapshot, snapshot.logits_with(snapshot.weights | {name: cut}))
        assert curve.loss_all[i].item() == pytest.approx(expected.loss_all, rel=1e-5)
    every = pruning_curve(snapshot, basis="singular", biases=True, fractions=[0, 1])
    costs = [
        min(m.shape) * sum(m.shape)
        for n, w in snapshot.weights.items()
        if w.ndim > 1 and ".b_" not in n
        for m in [as_matrix(n, w)]
    ]
    biases = sum(w.numel() for n, w in snapshot.weights.items() if ".b_" in n)
    assert every.parameters.tolist() == [sum(costs) + biases, 0]


@pytest.mark.parametrize("scope", ["layer", "global", "global_normalized", "embed.W_E"])
@pytest.mark.parametrize("biases", [False, True])
def test_a_curve_is_pruning_and_evaluating_one_by_one(scope, biases, tiny_run):
    fractions = [0, 0.3, 0.55, 1]
    curve = pruning_curve(tiny_run, step=20, scope=scope, biases=biases, fractions=fractions)
    snapshot = tiny_run.snapshot(20)
    assert curve.step == 20
    for i, q in enumerate(fractions):
        model = tiny_run.architecture.hooked(prune(snapshot.weights, q, scope=scope, biases=biases))
        with torch.no_grad():
            logits = model(tiny_run.task.tokens)[:, -1, : tiny_run.task.n_classes]
        expected = score(snapshot, logits)
        for column, value in vars(expected).items():
            assert getattr(curve, column)[i].item() == pytest.approx(value, rel=1e-5), column


@pytest.mark.parametrize("basis", ["weights", "fourier", "singular"])
def test_the_first_point_is_the_model_itself(basis, shipped):
    snapshot = shipped.snapshot(5200)
    before = {name: w.clone() for name, w in snapshot.weights.items()}
    state = torch.get_rng_state()
    curve = pruning_curve(snapshot, basis=basis, fractions=[0, 1])
    assert curve.unpruned == score(snapshot, snapshot.logits)
    assert curve.loss_all[1].item() == pytest.approx(math.log(113), abs=1e-4)  # biases are ~ 0
    assert all(torch.equal(w, before[name]) for name, w in snapshot.weights.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_shipped_model_is_more_compressible_in_the_fourier_basis(shipped):
    grid = [0, 0.2, 0.4, 0.6, 0.8, 1]
    last = pruning_curve(shipped, fractions=grid)
    rotated = pruning_curve(shipped, basis="fourier", fractions=grid)
    assert 2.8 < last.c < 3.2
    assert 3.4 < rotated.c < 3.9
    assert last.n_weights == 226_048
    low, high = last.c_interval
    assert low < 2.90627 < high  # of 51 points


def curve_of(accuracy, fractions=None, keep=0.95):
    m = len(accuracy)
    fractions = (
        torch.linspace(0, 1, m, dtype=torch.float64)
        if fractions is None
        else torch.tensor(fractions)
    )
    empty = torch.full((m,), math.nan, dtype=torch.float64)
    counts = torch.arange(m)
    return PruningCurve(
        fractions=fractions.double(), kept=counts, parameters=counts, acc_train=empty,
        acc_test=torch.tensor(accuracy, dtype=torch.float64), acc_all=empty, loss_train=empty,
        loss_test=empty, loss_all=empty, rows="test", scope="layer", score="magnitude",
        basis="weights", biases=False, keep=keep, n_weights=m, step=None,
    )  # fmt: skip


def test_closed_forms_of_area_and_c():
    whole = curve_of([1.0] * 51)
    assert (whole.area, whole.c, whole.c_interval) == (1.0, math.inf, (math.inf, math.inf))
    assert whole.prunable == 1.0
    falling = curve_of([1.0, 0.0])
    assert (falling.area, falling.c, falling.c_interval) == (0.5, 2.0, (1.0, math.inf))
    assert falling.prunable == 0.0
    uneven = curve_of([1.0, 0.5, 0.25], fractions=[0.0, 0.9, 1.0])
    assert uneven.area == pytest.approx(0.9 * 0.75 + 0.1 * 0.375)
    least, most = 0.9 * 0.5 + 0.1 * 0.25, 0.9 * 1 + 0.1 * 0.5
    assert uneven.c_interval == pytest.approx((1 / (1 - least), 1 / (1 - most)))


def test_prunable_ends_at_the_first_fall_and_is_relative_to_the_unpruned_accuracy():
    assert curve_of([1, 0.96, 0.5, 0.99, 0]).prunable == 0.25
    assert curve_of([0.5, 0.48, 0.47, 0.1, 0]).prunable == 0.25
    assert curve_of([0.5, 0.48, 0.475, 0.1, 0]).prunable == 0.5
    assert curve_of([0.5, 0.7, 0.6, 0.1, 0]).prunable == 0.5
    assert curve_of([1, 0.6, 0.5, 0.4, 0], keep=0.5).prunable == 0.5


def test_c_of_any_monotone_curve_is_within_the_interval_of_its_grid():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        fine = torch.rand(1001, generator=generator).double().pow(8).cumsum(0).flip(0)
        fine = (fine / fine[0]).tolist()
        coarse = curve_of(fine[::100])
        low, high = coarse.c_interval
        assert low <= curve_of(fine).c <= high
        assert low < coarse.c < high
        variation = coarse.acc_test.diff().abs().sum().item()
        half = 0.5 * 0.1 * variation  # the stated bound
        assert 1 / low - 1 / coarse.c == pytest.approx(half, rel=1e-9)
        assert 1 / coarse.c - 1 / high == pytest.approx(half, rel=1e-9)


def test_the_table_has_a_row_a_fraction_and_says_what_was_asked(sparse):
    curve = pruning_curve(sparse, scope="global", biases=True, keep=0.9)
    table = curve.table()
    assert table["fraction"].tolist() == list(GRID)
    assert list(table) == ["fraction", "kept", "parameters", *vars(Score(*[0.0] * 6))]
    for column in table.columns[1:]:
        assert table[column].tolist() == getattr(curve, column).tolist()
    assert table.dtypes[3:].eq("float64").all()
    assert table.attrs == {
        "rows": "test", "scope": "global", "score": "magnitude", "basis": "weights",
        "biases": True, "keep": 0.9, "n_weights": 90 + 3 + 5 + 1 + 5 + 5, "step": None,
        "score_rows": None, "score_samples": None, "c": curve.c, "area": curve.area,
        "prunable": curve.prunable,
    }  # fmt: skip
    assert "c=" in repr(curve)
    assert len(repr(curve)) < 200


def test_models_with_their_task_and_logits_with_other_weights(tiny_run, monkeypatch):
    train = tiny_run.train_mask
    of_model = pruning_curve(
        tiny_run.model(), task=tiny_run.task, train_mask=train, fractions=[0, 0.5, 1]
    )
    of_run = pruning_curve(tiny_run, fractions=[0, 0.5, 1])
    assert torch.equal(of_model.acc_test, of_run.acc_test)
    assert torch.allclose(of_model.loss_test, of_run.loss_test, rtol=1e-6)
    snapshot = tiny_run.snapshot()
    monkeypatch.setattr(
        transformer_lens_adapter, "build_model", None
    )  # TransformerLens is not needed
    other = tiny_run.weights(0)
    assert torch.equal(snapshot.logits_with(other), tiny_run.snapshot(0).logits)
    assert torch.equal(snapshot.logits, tiny_run.snapshot().logits)
    with pytest.raises(gi.InputError, match="is missing"):
        snapshot.logits_with({})
    assert (
        snapshot.logits_with({name: weight.double() for name, weight in other.items()}).dtype
        == torch.float64
    )


def test_refusals_are_one_line(sparse, tiny_run):
    hooked = gi.snapshot(models_of_users.layer_norm_model(layers=2), ModularTask("add", 7))
    empty = {}
    for call, says in [
        (lambda: pruning_curve(sparse, fractions=[0.1, 1]), "do not rise from 0 to 1"),
        (lambda: pruning_curve(sparse, fractions=[0, 0.9]), "do not rise from 0 to 1"),
        (lambda: pruning_curve(sparse, fractions=[0, 0.5, 0.5, 1]), "do not rise from 0 to 1"),
        (lambda: pruning_curve(sparse, fractions=[0, math.nan, 1]), "do not rise from 0 to 1"),
        (lambda: pruning_curve(sparse, keep=0.0), "keep=0.0"),
        (lambda: pruning_curve(sparse, scope="unembed.b_U"), "is not known"),
        (lambda: pruning_curve(sparse, scores="fisher"), "scores='fisher' is not known"),
        (lambda: pruning_curve(sparse, scores=lambda s: 1.0), "scores of type float"),
        (lambda: pruning_curve(sparse, scores="fisher_logits", basis="fourier"),
         "do not score coordinates"),
        (lambda: pruning_curve(sparse, scores=empty), "are missing"),
        (lambda: pruning_curve(sparse, scores=empty, basis="fourier"), "basis='fourier'"),
        (lambda: pruning_curve(sparse, basis="wavelet"), "basis='wavelet' is not known"),
        (lambda: pruning_curve(sparse, step=3), "is for runs"),
        (lambda: pruning_curve(tiny_run, step=3), "step 3 is not saved"),
        (lambda: pruning_curve(tiny_run, task=tiny_run.task, train_mask=tiny_run.train_mask),
         "are for models"),
        (lambda: pruning_curve(hooked), "the weights alone do not say"),
    ]:  # fmt: skip
        with pytest.raises(gi.InputError, match=says) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_evaluated_on_test_alone_c_is_the_same(tiny_run):
    whole, part = (pruning_curve(tiny_run, test_only=only) for only in (False, True))
    assert part.rows == "test"
    assert torch.equal(part.acc_test, whole.acc_test)
    # A matrix product of other rows rounds otherwise, in float32.
    torch.testing.assert_close(part.loss_test, whole.loss_test, rtol=2e-6, atol=0)
    assert (part.c, part.prunable) == (whole.c, whole.prunable)
    assert part.acc_train.isnan().all()
    assert part.loss_all.isnan().all()
    assert not whole.acc_train.isnan().any()
