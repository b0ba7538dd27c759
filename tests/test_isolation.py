import copy
import itertools
import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.circles import isolate_circles, with_embedding
from grokinterp.circuits.clock_and_pizza import logit_forms
from grokinterp.fourier import fourier_basis
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock, dense, models_of_users
from tests.exact_clock import ExactClock, random_radii, waves

P, KEYS, AMPLITUDE = 31, (2, 5, 13), 10.0


@pytest.fixture(scope="module")
def pizza():
    weights = clock.clock_weights(P, KEYS, AMPLITUDE)
    return from_weights(weights, clock.clock_architecture(P, 3), ModularTask("add", P))


def test_each_circle_of_the_hand_built_model_computes_its_own_pizza(pizza):
    found = isolate_circles(pizza)
    assert found.accuracy == 1.0
    a, b = pizza.task.operands.double().unbind(1)
    c = torch.arange(P)
    for subset in found.subsets:
        logits = sum(
            AMPLITUDE
            * (math.pi * k * (a - b) / P).cos().abs()[:, None]
            * (2 * math.pi * k * ((a + b)[:, None] - c) / P).cos()
            for k in subset.frequencies
        )
        expected = dense.cross_entropy(logits, pizza.task.labels)
        assert subset.loss == pytest.approx(expected, rel=5e-3)
        if len(subset.frequencies) == 1:
            assert subset.form == "pizza"
            assert subset.fit.frequency == subset.frequencies[0]
            assert subset.published("pizza") == pytest.approx(1, abs=2e-3)
            r = math.sqrt(2) * clock.mean_envelope(P)
            assert subset.published("clock") == pytest.approx(2 * r - 1, abs=2e-3)
        else:
            assert subset.fit is None
            assert subset.form is None
            with pytest.raises(gi.InputError, match="not a single circle"):
                subset.published("pizza")
    sets = [subset.frequencies for subset in found.subsets]
    assert sorted(sets[:3]) == [(2,), (5,), (13,)]
    assert [len(subset) for subset in sets] == [1, 1, 1, 2, 3]
    assert found.subsets[-1].loss == pytest.approx(found.loss, rel=1e-4)


def test_isolation_is_the_hooked_model_with_these_embeddings(shipped):
    """Frequencies 9 and 55 of W_E by an explicit basis, given to TransformerLens by a hook."""
    weights = shipped.weights()
    table = weights["embed.W_E"].double()
    rows = fourier_basis(113)[[0, 17, 18, 109, 110]]  # constant, cos and sin of 9 and of 55
    kept = torch.cat([rows.T @ (rows @ table[:113]), table[113:]]).float()
    model = shipped.architecture.hooked(weights)
    task = shipped.task
    with torch.no_grad():
        logits = model.run_with_hooks(
            task.tokens, fwd_hooks=[("hook_embed", lambda value, hook: kept[task.tokens])]
        )[:, -1]
    (found,) = isolate_circles(shipped, subsets=[(55, 9)]).subsets
    assert found.frequencies == (55, 9)
    right = (logits.argmax(1) == task.labels).double().mean()
    assert found.accuracy == pytest.approx(float(right), abs=2e-4)
    assert found.loss == pytest.approx(dense.cross_entropy(logits, task.labels), rel=1e-5)


def test_principal_planes_are_those_of_the_singular_values(shipped):
    table = shipped.weights()["embed.W_E"].double()
    mean = table[:113].mean(0)
    left, singular, right = torch.linalg.svd(table[:113] - mean, full_matrices=False)
    plane = (left[:, :2] * singular[:2]) @ right[:2]  # 55 leads the two strongest components
    kept = torch.cat([plane + mean, table[113:]]).float()
    weights = shipped.weights() | {"embed.W_E": kept}
    expected = from_weights(weights, shipped.architecture, shipped.task)
    (found,) = isolate_circles(shipped, subsets=[[55]], method="principal").subsets
    assert found.loss == pytest.approx(
        dense.cross_entropy(expected.logits, shipped.task.labels), rel=1e-5
    )
    fit = logit_forms(expected, frequencies=[55]).fits[0]
    assert vars(found.fit) == pytest.approx(vars(fit), rel=1e-4)


def test_the_published_share_is_of_logits_and_form_scaled_alike(shipped):
    """1 - |L / |L| - F / |F||^2 / 1, L less each input's mean: 2 r - 1."""
    weights, basis = shipped.weights(), fourier_basis(113)
    table = weights["embed.W_E"].double()
    rows = basis[[0, 17, 18]]
    weights["embed.W_E"] = torch.cat([rows.T @ (rows @ table[:113]), table[113:]]).float()
    logits = from_weights(weights, shipped.architecture, shipped.task).logits.double()
    logits = (logits - logits.mean(1, keepdim=True)).view(113, 113, 113)
    i = torch.arange(113)
    form = (2 * torch.pi * 9 * (i[:, None, None] + i[:, None] - i).double() / 113).cos()
    form = form * (torch.pi * 9 * (i[:, None, None] - i[:, None]).double() / 113).cos().abs()
    rest = logits / logits.norm() - form / form.norm()
    (found,) = isolate_circles(shipped, subsets=[[9]]).subsets
    assert found.published("pizza") == pytest.approx(1 - float(rest.square().sum()), abs=1e-5)


def test_a_clock_shows_clocks_and_any_subsets():
    radii = random_radii(P)
    model = ExactClock(P, (3, 7, 11), radii)
    task = ModularTask("add", P)
    subsets = list(itertools.combinations((3, 7, 11), 1))
    found = isolate_circles(model, task=task, subsets=subsets)
    assert [subset.frequencies for subset in found.subsets] == subsets
    assert [subset.form for subset in found.subsets] == ["clock"] * 3
    # Radii make each circle leak into all frequencies of all columns of the embedding.
    every = waves(P, (3, 7, 11))
    embedded = torch.view_as_real(radii[:, None] * every).flatten(1)
    rows = fourier_basis(P)[[0, 5, 6]]
    kept = torch.view_as_complex((rows.T @ (rows @ embedded)).unflatten(1, (3, 2)))
    logits = torch.einsum("ak,bk,ck->abc", kept, kept, every.conj()).real.flatten(0, 1)
    assert found.subsets[0].loss == pytest.approx(dense.cross_entropy(logits, task.labels))


def test_the_users_model_is_called_with_other_embeddings_and_left_alone():
    model = models_of_users.layer_norm_model(layers=2)
    hooks = models_of_users.hooks_of(model)
    task = ModularTask("add", 7)
    before = copy.deepcopy(model.state_dict())
    parameters = [id(parameter) for parameter in model.parameters()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = isolate_circles(model, task=task, subsets=[(1,), (1, 2, 3)])
    snapshot = gi.snapshot(model, task)
    assert snapshot.architecture is None  # so that what follows is not the plain forward
    table = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.W_E.copy_(table)
        expected = changed(task.tokens)[:, -1]
    torch.testing.assert_close(with_embedding(snapshot, table.double()).logits, expected)
    assert found.subsets[1].loss == pytest.approx(found.loss, rel=1e-4)
    assert found.subsets[0].loss != pytest.approx(found.loss, rel=1e-2)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert models_of_users.hooks_of(model) == hooks
    assert model.training
    with (
        pytest.raises(RuntimeError, match="from a hook"),
        models_of_users.failing(model),
    ):
        _ = with_embedding(snapshot, table).logits
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [id(parameter) for parameter in model.parameters()] == parameters


def test_embeddings_that_are_not_rows_of_the_table_are_refused():
    model = models_of_users.layer_norm_model(layers=2)
    task = ModularTask("add", 7)
    snapshot = gi.snapshot(model, task)
    doubled = with_embedding(snapshot, snapshot.weights["embed.W_E"])
    with (
        model.hooks(fwd_hooks=[("hook_embed", lambda value, hook: 2 * value)]),
        pytest.raises(gi.InputError, match=r"not W_E\[tokens\]"),
    ):
        _ = doubled.logits
    with pytest.raises(gi.InputError, match="no activation 'blocks"):
        doubled.activation("blocks.0.hook_mlp_out")


def test_keeping_every_frequency_keeps_the_model(tiny_run):
    found = isolate_circles(tiny_run, subsets=[(1, 2, 3)])
    assert found.subsets[0].loss == pytest.approx(found.loss, rel=1e-5)
    assert found.subsets[0].accuracy == found.accuracy
    snapshot = tiny_run.snapshot()
    assert found.loss == pytest.approx(dense.cross_entropy(snapshot.logits, snapshot.task.labels))


def test_multiplication_keeps_the_embedding_of_zero():
    recipe = gi.Recipe(p=7, operation="multiply", train_fraction=0.5, init_scale=3.0)
    task = recipe.build_task()
    weights = models_of_users.plain_weights(recipe.architecture())
    snapshot = from_weights(weights, recipe.architecture(), task)
    tokens = task.answer_group.tokens
    rows = fourier_basis(6)[[0, 3, 4]]
    table = weights["embed.W_E"].clone()
    table[tokens] = (rows.T @ (rows @ table[tokens].double())).float()
    expected = with_embedding(snapshot, table.double())
    (found,) = isolate_circles(snapshot, subsets=[(2,)]).subsets
    assert found.loss == pytest.approx(dense.cross_entropy(expected.logits, task.labels), rel=1e-6)


def test_what_cannot_be_isolated_says_so(tiny_run, pizza):
    with pytest.raises(gi.InputError, match="did you mean 'principal'"):
        isolate_circles(pizza, method="principle")
    with pytest.raises(gi.InputError, match="frequency=16 is not a whole number from 1 to 15"):
        isolate_circles(pizza, subsets=[(2, 16)])
    with pytest.raises(gi.InputError, match="no key frequencies"):
        isolate_circles(tiny_run, step=0)


def test_the_table_has_a_row_per_set_and_the_intact_model(pizza):
    table = isolate_circles(pizza, subsets=[(2,), (2, 5)]).table()
    assert table["circles"].tolist() == [(2,), (2, 5), ()]
    assert table["accuracy"].iloc[-1] == 1.0
    assert table["pizza"].notna().tolist() == [True, False, False]
    assert table.attrs["method"] == "frequency"
