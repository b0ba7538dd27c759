import copy
import random

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import clock_and_pizza
from grokinterp.circuits.clock_and_pizza import gradient_symmetricity, sampled_triples
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock, models_of_users
from tests.exact_clock import ExactClock, random_radii

P = 31


@pytest.fixture(scope="module")
def pizza():
    weights = clock.clock_weights(P, (2, 5, 13), 10.0)
    return from_weights(weights, clock.clock_architecture(P, 3), ModularTask("add", P))


def random_snapshot(p=7, *, equals_token=True, operation="add", **architecture):
    recipe = gi.Recipe(p=p, d_model=12, n_heads=2, d_head=5, d_mlp=24, init_scale=3.0)
    shape = recipe.architecture().__dict__ | {"n_ctx": 2 + equals_token} | architecture
    shape = type(recipe.architecture())(**shape)
    weights = shape.initial(seed=1)
    return from_weights(weights, shape, ModularTask(operation, p, equals_token))


def test_adding_the_embeddings_gives_one(pizza):
    found = gradient_symmetricity(pizza)
    assert found.value == pytest.approx(1, abs=1e-12)
    assert found.std < 1e-9
    assert found.n_left_out == 0


def test_multiplying_them_gives_the_closed_form():
    """cos(dQ/dE_a, dQ/dE_b) is the mean over k of cos(w_k (a - b)), whatever c and the radii."""
    frequencies = (3, 7, 11)
    model = ExactClock(P, frequencies, random_radii(P))
    found = gradient_symmetricity(model, task=ModularTask("add", P), n_samples=40, seed=5)
    a, b, _ = found.triples.double().unbind(1)
    expected = torch.stack([(2 * torch.pi * k * (a - b) / P).cos() for k in frequencies]).mean(0)
    torch.testing.assert_close(found.cosines, expected)
    assert found.value == pytest.approx(float(expected.mean()))
    assert found.std == pytest.approx(float(expected.std(unbiased=False)))
    assert found.standard_error == pytest.approx(found.std / 40**0.5)


def test_the_sample_is_the_published_one():
    every = [(a, b, c) for a in range(5) for b in range(5) for c in range(5)]
    random.Random(42).shuffle(every)
    drawn = sampled_triples(ModularTask("add", 5), n_samples=100, seed=42)
    assert [tuple(row) for row in drawn.tolist()] == every[:100]
    assert len(sampled_triples(ModularTask("add", 3), n_samples=100, seed=0)) == 27


def test_samples_of_large_and_of_multiplicative_tasks(monkeypatch):
    drawn = sampled_triples(ModularTask("multiply", 7), n_samples=500, seed=3)
    assert len(drawn) == len(drawn.unique(dim=0)) == 6**3
    assert drawn.min() == 1
    monkeypatch.setattr(clock_and_pizza, "LARGEST_SHUFFLE", 100)
    drawn = sampled_triples(ModularTask("add", 7), n_samples=50, seed=3)
    assert len(drawn.unique(dim=0)) == 50
    assert len(sampled_triples(ModularTask("add", 7), n_samples=500, seed=3)) == 343


@pytest.mark.parametrize("equals_token", [True, False])
@pytest.mark.parametrize("extra", [{}, {"act_fn": "gelu"}, {"attention_rate": 0.3}])
def test_both_ways_agree_with_central_differences(equals_token, extra, monkeypatch):
    snapshot = random_snapshot(equals_token=equals_token, **extra)
    monkeypatch.setattr(clock_and_pizza, "BLOCK_TRIPLES", 7)
    found = gradient_symmetricity(snapshot, n_samples=20)
    weights = {name: weight.double() for name, weight in snapshot.weights.items()}
    model = snapshot.architecture.hooked(weights)
    hooked = clock_and_pizza.hooked_gradients(model, snapshot.task, found.triples)
    plain = clock_and_pizza._gradients(snapshot, found.triples)
    torch.testing.assert_close(plain, hooked, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.cosines, clock_and_pizza._cosines(hooked))

    a, b, c = found.triples[0].tolist()
    tokens = snapshot.task.tokens[[a * 7 + b]]
    for position in (0, 1):
        for i in range(12):

            def logit(shift, position=position, i=i):
                def move(value, hook):
                    value = value.clone()
                    value[0, position, i] += shift
                    return value

                with torch.no_grad():
                    out = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", move)])
                return float(out[0, -1, c])

            slope = (logit(1e-5) - logit(-1e-5)) / 2e-5
            assert float(hooked[0, position, i]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_gradients_of_zero_are_left_out_and_said():
    snapshot = random_snapshot()
    weights = {name: weight.clone() for name, weight in snapshot.weights.items()}
    weights["unembed.W_U"][:, 2:] = 0.0  # only classes 0 and 1 depend on anything
    silent = from_weights(weights, snapshot.architecture, snapshot.task)
    found = gradient_symmetricity(silent, n_samples=70)
    kept = found.triples[:, 2] < 2
    assert found.n_left_out == int((~kept).sum())
    assert found.value == pytest.approx(float(found.cosines[kept].mean()))
    assert found.standard_error == pytest.approx(found.std / int(kept.sum()) ** 0.5)
    assert f"{found.n_left_out} of 70 triples left out" in found.reason
    weights["unembed.W_U"].zero_()
    nothing = gradient_symmetricity(from_weights(weights, snapshot.architecture, snapshot.task))
    assert (nothing.value, nothing.std, nothing.standard_error) == (None, None, None)
    assert "100 of 100" in nothing.reason


def test_the_users_model_and_random_numbers_are_as_before(monkeypatch):
    model = models_of_users.layer_norm_model(layers=2)
    hooks = models_of_users.hooks_of(model)
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    task = ModularTask("add", 7)
    before = copy.deepcopy(model.state_dict())
    flags = [parameter.requires_grad for parameter in model.parameters()]
    # `random` itself is drawn from by the type checker of these tests.
    monkeypatch.setattr(random, "shuffle", None)
    monkeypatch.setattr(random, "sample", None)
    monkeypatch.setattr(random, "seed", None)
    states = np.random.get_state()[1].tolist(), torch.get_rng_state()
    with torch.no_grad():
        found = gradient_symmetricity(model, task=task)
    assert found.value is not None
    assert abs(found.value) <= 1
    with pytest.raises(RuntimeError, match="from a hook"), models_of_users.failing(model):
        clock_and_pizza.hooked_gradients(model, task, found.triples)
    assert np.random.get_state()[1].tolist() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert models_of_users.hooks_of(model) == hooks
    assert model.training


def test_a_model_of_several_layers_is_hooked_from_weights_too():
    model = models_of_users.layer_norm_model(layers=2)
    task = ModularTask("add", 7)
    found = gradient_symmetricity(model, task=task)
    a, b, c = found.triples[3].tolist()
    tokens = torch.tensor([[a, b, 7]])
    embedded = model.W_E[tokens].detach().double().requires_grad_()
    exact = copy.deepcopy(model).double()
    logits = exact.run_with_hooks(tokens, fwd_hooks=[("hook_embed", lambda v, hook: embedded)])
    (gradient,) = torch.autograd.grad(logits[0, -1, c], embedded)
    expected = torch.nn.functional.cosine_similarity(gradient[0, 0], gradient[0, 1], dim=0)
    assert float(found.cosines[3]) == pytest.approx(float(expected), abs=1e-4)


def test_what_it_cannot_do_is_one_line(pizza):
    with pytest.raises(gi.InputError, match="n_samples=0 is not"):
        gradient_symmetricity(pizza, n_samples=0)
    model = ExactClock(5, (1,), random_radii(5))
    del model.hook_dict["hook_embed"]
    with pytest.raises(gi.InputError, match="ExactClock has no 'hook_embed'"):
        gradient_symmetricity(model, task=ModularTask("add", 5))


def test_the_table_has_every_triple(pizza):
    table = gradient_symmetricity(pizza, n_samples=3).table()
    assert list(table.columns) == ["a", "b", "c", "cosine"]
    assert len(table) == 3
    assert table.attrs["seed"] == 42
