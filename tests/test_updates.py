"""How weights change: every objective, filter, projection and constraint against its definition."""

import copy
import math
from collections import deque

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.training import train_ensemble
from grokinterp.updates import (
    OBJECTIVES,
    Batches,
    Hinge,
    MeanSquaredError,
    Muon,
    NormClamp,
    StableMax,
    clipped,
    objective_of,
    perpendicular,
    rate_share,
)
from tests.small_runs import SMALL, each_trained_once, flat, norm

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return each_trained_once(tmp_path_factory.mktemp("runs"))


def gradients_by_autograd(run, weights, labels=None):
    """The gradient of the objective on the training rows, from the plain forward."""
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    rows = run.train_indices
    logits = run.architecture.forward(leaves, run.task.model_inputs[rows])
    loss = objective_of(run.recipe).checked_loss(logits, run.task.targets[rows])
    found = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


# Objectives


def of_numpy(name, z, y):
    """The definitions, once more, with numpy."""
    right = z[np.arange(len(y)), y]
    if name == "cross_entropy":
        return np.mean(np.log(np.exp(z).sum(axis=1)) - right)
    if name == "mse":
        return np.mean((z - np.eye(z.shape[1])[y]) ** 2)
    if name == "stablemax":
        s = np.where(z >= 0, z + 1, 1 / (1 - np.minimum(z, 0)))
        return np.mean(np.log(s.sum(axis=1)) - np.log(s[np.arange(len(y)), y]))
    others = z.copy()
    others[np.arange(len(y)), y] = -np.inf
    return np.mean(np.maximum(0, 1.5 - (right - others.max(axis=1))))


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "stablemax", "hinge"])
def test_an_objective_is_its_definition_and_so_is_its_gradient(name):
    options = {"margin": 1.5} if name == "hinge" else {}
    objective = gi.Recipe(objective=name, **options).build("objective")
    z = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    y = torch.arange(40) % 7
    leaf = z.clone().requires_grad_()
    loss = objective.checked_loss(leaf, y)
    assert loss.item() == pytest.approx(of_numpy(name, z.numpy(), y.numpy()), abs=1e-12)
    (by_autograd,) = torch.autograd.grad(loss, leaf)
    assert torch.allclose(objective.by_logits(z, y), by_autograd, atol=1e-12)
    stacked = objective.by_logits(torch.stack([z, -z]), torch.stack([y, y]))  # of two members
    assert torch.allclose(stacked[0], by_autograd, atol=1e-12)
    assert torch.allclose(stacked[1], objective.by_logits(-z, y), atol=1e-12)
    halves = [objective.loss(z[rows], y[rows]) for rows in (slice(0, 20), slice(20, 40))]
    assert objective.mean_over_rows
    assert (sum(halves) / 2).item() == pytest.approx(loss.item(), abs=1e-12)


def test_stablemax_stays_exact_and_finite_where_softmax_is_not():
    logits = torch.tensor([[1e30, -1e30, 0.0]])
    assert StableMax().loss(logits, torch.tensor([0])).item() == pytest.approx(1e-30, rel=1e-6)
    lost = StableMax().loss(logits, torch.tensor([1])).item()
    assert lost == pytest.approx(2 * math.log(1e30), rel=1e-6)


def test_a_hinge_of_two_classes_is_that_of_their_difference():
    z = torch.tensor([[0.0, 0.4], [0.0, -3.0], [0.0, 7.0]])
    expected = torch.tensor([1 - 0.4, 1 + 3.0, 0.0]).mean()
    assert Hinge().loss(z, torch.tensor([1, 1, 1])).item() == pytest.approx(expected.item())
    assert MeanSquaredError().loss(torch.eye(2), torch.tensor([0, 1])).item() == 0


@pytest.mark.parametrize("name", list(OBJECTIVES)[:4])
def test_a_temperature_scales_logits_for_the_objective_alone(name, runs):
    objective = objective_of(gi.Recipe(objective=name, output_scale=0.3))
    z, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 4
    leaf = z.clone().requires_grad_()
    plain = gi.Recipe(objective=name).build("objective").loss(0.3 * leaf, y)
    assert torch.equal(objective.checked_loss(z.requires_grad_(), y), plain)
    (expected,) = torch.autograd.grad(plain, leaf)
    assert torch.allclose(objective.by_logits(z.detach(), y), expected, atol=1e-14)
    short = {"objective": name, "steps": 6, "checkpoints": [0]}
    cold, usual = runs(**short, output_scale=0.3), runs(**short)
    assert cold.metrics.iloc[0].equals(usual.metrics.iloc[0])  # of the logits as they are
    assert not cold.metrics.iloc[5].equals(usual.metrics.iloc[5])


# Gradient filters


def reference(recipe, run, changed):
    """Plain SGD on gradients by autograd, changed on their way by a function of the update."""
    weights = run.weights(0)
    for _ in range(recipe.steps):
        gradients = changed(gradients_by_autograd(run, weights))
        weights = {name: w - recipe.lr * gradients[name] for name, w in weights.items()}
    return weights


def test_grokfast_is_its_definition_over_200_steps(runs):
    plain = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "steps": 200}
    plain |= {"checkpoints": [0], "log_every": 100}
    slow = {}

    def ema(gradients):
        for name, g in gradients.items():
            slow[name] = 0.9 * slow.get(name, g) + 0.1 * g
        return {name: g + 2.0 * slow[name] for name, g in gradients.items()}

    run = runs(**plain, gradient_filter="ema", filter_alpha=0.9)
    expected = reference(run.recipe, run, ema)
    assert all(torch.allclose(expected[n], w, atol=2e-5) for n, w in run.weights().items())

    last = deque(maxlen=20)

    def ma(gradients):
        last.append(gradients)
        if len(last) < 20:
            return gradients
        means = {name: torch.stack([g[name] for g in last]).mean(dim=0) for name in gradients}
        return {name: g + 5.0 * means[name] for name, g in gradients.items()}

    run = runs(**plain, gradient_filter="ma", filter_window=20)
    expected = reference(run.recipe, run, ma)
    assert all(torch.allclose(expected[n], w, atol=2e-5) for n, w in run.weights().items())
    unfiltered = runs(**plain).weights()
    assert not any(torch.allclose(expected[n], w, atol=1e-3) for n, w in unfiltered.items())


@pytest.mark.parametrize("name", ["ema", "ma"])
def test_a_weight_may_have_any_name_in_a_filter(name):
    filter_ = gi.Recipe(gradient_filter=name, filter_lambda=1).build("gradient_filter")
    weights = {"updates": torch.zeros(2, 3)}
    state = filter_.start(weights)
    expected = torch.full((2, 3), 2.0 if name == "ema" else 1.0)
    gradients = {"updates": torch.ones(2, 3)}
    assert torch.equal(filter_.filtered(gradients, state)["updates"], expected)


def test_filters_have_the_defaults_of_the_paper():
    ema, ma = gi.Recipe(gradient_filter="ema"), gi.Recipe(gradient_filter="ma")
    assert (ema.filter_alpha, ema.filter_lambda) == (0.98, 2.0)
    assert (ma.filter_window, ma.filter_lambda) == (100, 5.0)


# Projections


def test_what_is_left_of_a_gradient_is_perpendicular_and_as_long():
    generator = torch.Generator().manual_seed(0)
    shapes = {"embed.W_E": (12, 16), "blocks.0.attn.W_Q": (2, 16, 8), "blocks.0.mlp.b_in": (9,)}
    w = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    # Nearly along the weights: of what is left, rounding would be a large part.
    g = {n: 100 * x + torch.randn(x.shape, generator=generator) for n, x in w.items()}
    before = copy.deepcopy(g)
    for name, left in perpendicular(g, w).items():
        cosine = float((w[name].double() * left.double()).sum()) / norm({0: w[name]})
        assert abs(cosine) < 1e-6 * norm({0: left})
        assert norm({0: left}) == pytest.approx(norm({0: g[name]}), rel=1e-6)
        wide, along = g[name].double().numpy(), w[name].double().numpy()
        expected = wide - (along * wide).sum() / (along**2).sum() * along
        expected *= np.linalg.norm(wide) / np.linalg.norm(expected)
        assert np.allclose(left.numpy(), expected, rtol=1e-4, atol=1e-5 * np.linalg.norm(wide))
    assert all(torch.equal(g[n], before[n]) for n in g)
    zero = {"b": torch.zeros(3)}
    assert torch.equal(perpendicular({"b": torch.ones(3)}, zero)["b"], torch.ones(3))
    # Along the weights rounding is all that is left, which is not to be scaled up.
    for shape in [(1,)] * 100 + [(10,)] * 10:
        w = torch.randn(shape, generator=generator)
        along = -0.3 * w * torch.rand((), generator=generator)
        assert not perpendicular({"b": along}, {"b": w})["b"].any()


def test_a_perpendicular_update_of_plain_descent_has_nothing_along_the_weights(runs):
    run = runs(
        optimizer="sgd", lr=1.0, weight_decay=0.0, orthogonal_gradients=True, steps=1,
        checkpoints=[0, 1],
    )  # fmt: skip
    for name, first in run.weights(0).items():
        step, w = run.weights(1)[name].double() - first.double(), first.double()
        rounding = 2**-24 * float(w.square().sum())  # of the float32 weights after the step
        assert abs(float((w * step).sum())) <= rounding
        assert rounding <= 1e-4 * float(w.norm() * step.norm())


def test_members_of_an_ensemble_are_projected_and_clipped_each_by_itself(tmp_path):
    keys = {"orthogonal_gradients": True, "clip_norm": 0.05, "norm_clamp": "global"}
    recipe = SMALL.replace(optimizer="sgd", steps=10, checkpoints="every:10", **keys)
    members = [recipe.replace(seed=seed) for seed in range(3)]
    for seed, run in enumerate(train_ensemble(members, tmp_path / "e", progress=False)):
        alone = gi.train(members[seed], tmp_path / str(seed), progress=False)
        for name, weight in alone.weights().items():
            assert torch.allclose(weight, run.weights()[name], atol=1e-6)
        assert np.allclose(alone.dynamics, run.dynamics, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_gradients_are_clipped_together():
    g = {"W": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    assert clipped(g, 5.5) is g
    assert norm(clipped(g, 2.0)) == pytest.approx(2.0)
    assert torch.allclose(flat(clipped(g, 2.0)) / 2, flat(g) / 5)


# Constraints


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("which", ["global", "layer"])
def test_a_held_norm_is_held(which, start, runs):
    hold = {"norm_clamp": which, "clamp_to": 0.8, "clamp_from": start}
    run = runs(**hold, steps=10, checkpoints="every:1")
    assert run.recipe.constraint == "norm_clamp"
    initial = SMALL.architecture().initial(seed=SMALL.seed)
    parts = [[*initial]] if which == "global" else [[n] for n in initial if ".W_" in n]
    for part in parts:
        wanted = 0.8 * norm({n: initial[n] for n in part})
        off = [norm({n: run.weights(s)[n] for n in part}) / wanted - 1 for s in run.steps]
        assert max(map(abs, off[start:])) < 1e-6
        assert start == 0 or min(map(abs, off[:start])) > 1e-4
    if which == "layer":
        assert norm({0: run.weights()["blocks.0.mlp.b_in"]}) > 0.01  # is free


def test_no_norm_is_held_by_a_clamp_of_none(runs):
    free, none = runs(), runs(norm_clamp="none")
    assert all(torch.equal(w, none.weights()[n]) for n, w in free.weights().items())
    zero = {"W": torch.zeros(2)}
    clamp = NormClamp()
    assert torch.equal(clamp.constrained(zero, clamp.start(zero))["W"], zero["W"])


def test_a_key_with_the_name_of_its_kind_chooses_it():
    assert gi.Recipe().replace(norm_clamp="layer").constraint == "norm_clamp"
    assert gi.Recipe(norm_clamp="global") == gi.Recipe(constraint="norm_clamp")
    with pytest.raises(gi.InputError, match=r"clamp_to=0\.8 means nothing for constraint='none'; "
                       "leave it out, or give constraint='norm_clamp'"):  # fmt: skip
        gi.Recipe(clamp_to=0.8)
    with pytest.raises(gi.InputError, match="give gradient_filter='ema'"):
        gi.Recipe(filter_alpha=0.9)
    with pytest.raises(gi.InputError, match=r"margin=2 means nothing .* give objective='hinge'"):
        gi.Recipe(margin=2)
    with pytest.raises(gi.InputError, match="norm_clamp='globel' is not known"):
        gi.Recipe(norm_clamp="globel")


# Optimisers


def test_muon_is_torchs_muon_of_hidden_matrices_and_adamw_of_the_rest():
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.W_E": (6, 4), "blocks.0.attn.W_Q": (2, 4, 3), "blocks.0.mlp.W_in": (4, 5),
        "blocks.0.mlp.b_in": (5,), "conv.0.W": (3, 2, 3, 3), "unembed.W_U": (4, 6),
    }  # fmt: skip
    weights = {n: torch.randn(*shape, generator=generator) for n, shape in shapes.items()}
    views = {
        "blocks.0.attn.W_Q": lambda x: [x[0], x[1]],
        "blocks.0.mlp.W_in": lambda x: [x],
        "conv.0.W": lambda x: [x.reshape(3, 18)],
    }
    theirs = {n: [y.clone() for y in views[n](w)] if n in views else w.clone()
              for n, w in weights.items()}  # fmt: skip
    kind = Muon(lr=0.1, weight_decay=0.5, momentum=0.9, adamw_lr=0.01)
    ours = kind.build(kind.groups(weights))
    muon = torch.optim.Muon(
        [y for n in views for y in theirs[n]], lr=0.1, weight_decay=0.5, momentum=0.9
    )
    rest = [w for n, w in theirs.items() if n not in views]
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.5, betas=(0.9, 0.98), fused=True)
    for _ in range(3):
        for name, weight in weights.items():
            weight.grad = torch.randn(weight.shape, generator=generator)
            if name in views:
                for mine, each in zip(theirs[name], views[name](weight.grad), strict=True):
                    mine.grad = each.clone()
            else:
                theirs[name].grad = weight.grad.clone()
        for optimizer in (ours, muon, adamw):
            optimizer.step()
    for name, weight in weights.items():
        found = views[name](weight) if name in views else [weight]
        expected = theirs[name] if name in views else [theirs[name]]
        assert all(map(torch.equal, found, expected)), name
    assert set(ours.state) == set(weights.values())


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_matrices_alone_decay(optimizer, runs):
    run = runs(optimizer=optimizer, decay_on="matrices", biases="all")
    rates = {"unembed.W_U": run.recipe.lr, "blocks.0.mlp.W_in": run.recipe.lr}
    if optimizer == "muon":
        rates["unembed.W_U"] = run.recipe.adamw_lr
    weights = run.weights(20)
    expected = norm({n: rate * weights[n] for n, rate in rates.items()})  # weight_decay is 1
    assert run.dynamics.update_decay[20] == pytest.approx(expected, rel=1e-5)
    everything = runs(optimizer=optimizer, biases="all").dynamics.update_decay
    assert everything[20] != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rates_follow_their_schedule(schedule, runs):
    run = runs(lr_schedule=schedule, lr_end=0.1, warmup=10)
    rates = run.dynamics.update_decay / run.dynamics.weight_norm / run.recipe.lr
    through = np.clip((np.arange(30) - 10) / 20, 0, 1)
    left = 1 - through if schedule == "linear" else (1 + np.cos(np.pi * through)) / 2
    expected = np.where(np.arange(30) < 10, np.arange(30) / 10, 0.1 + 0.9 * left)
    assert np.allclose(rates, expected, rtol=1e-5)
    assert np.allclose([rate_share(run.recipe, s) for s in range(30)], expected)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_numbers_beyond_float32_diverge_or_are_refused(optimizer, tmp_path):
    recipe = SMALL.replace(optimizer=optimizer, weight_decay=1e300, decay_on="matrices")
    with pytest.raises(gi.InputError, match="diverged"):
        gi.train(recipe, tmp_path / "run", progress=False)
    for keys in ({"gradient_filter": "ema", "filter_lambda": 1e300},
                 {"gradient_filter": "ma", "filter_lambda": 1e300},
                 {"optimizer": "muon", "lr": 1e300}):  # fmt: skip
        with pytest.raises(gi.InputError, match=r"at most 1e\+30"):
            gi.Recipe(**keys)


# Dynamics


def test_dynamics_are_those_of_the_checkpoints(runs):
    run = runs(gradient_filter="ema", norm_clamp="global", objective="stablemax", output_scale=0.7)
    assert list(run.dynamics.step) == list(range(30))
    for step in (0, 10, 20):
        row, weights = run.dynamics.iloc[step], run.weights(step)
        w, g = flat(weights), flat(gradients_by_autograd(run, weights))
        assert row.weight_norm == pytest.approx(float(w.norm()), rel=1e-5)
        assert row.grad_norm == pytest.approx(float(g.norm()), rel=1e-4)
        assert row.cos_gradient_weights == pytest.approx(
            float(w @ g / w.norm() / g.norm()), abs=1e-4
        )
    plain = runs(weight_decay=0.3, checkpoints=[0, 1, 7, 8, 29])
    for step in (0, 7, 29):
        row = plain.dynamics.iloc[step]
        before, after = flat(plain.weights(step)), flat(plain.weights(step + 1))
        decay = -0.05 * 0.3 * before
        loss = after - before - decay
        assert row.update_loss == pytest.approx(float(loss.norm()), rel=1e-4)
        assert row.update_decay == pytest.approx(float(decay.norm()), rel=1e-5)
        cosine = float(loss @ decay / loss.norm() / decay.norm())
        assert row.cos_updates == pytest.approx(cosine, abs=1e-4)


def test_what_an_optimiser_couples_is_not_told_apart(runs):
    coupled = runs(optimizer="adam").dynamics
    assert coupled[["update_loss", "update_decay", "cos_updates"]].isna().all(axis=None)
    assert coupled[["weight_norm", "grad_norm"]].notna().all(axis=None)
    assert runs(weight_decay=0.0).dynamics.cos_updates.isna().all()
    assert gi.load("mod31-small").dynamics is None  # of an earlier version


def test_a_flipped_bit_of_the_dynamics_is_found(tmp_path):
    run = gi.train(SMALL, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "dynamics.csv"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(gi.InputError, match=r"dynamics\.csv"):
        gi.load(run.path).verify()


# What was there before


@pytest.mark.parametrize("name", ["mod31-grokked", "mlp31", "mlp113-steady"])
def test_a_default_recipe_trains_to_the_bits_of_its_optimiser_alone(name, tmp_path):
    """Gradients go into torch's AdamW or Adam as they are, and nothing is done afterwards."""
    recipe = gi.recipes()[name].replace(steps=6, checkpoints=[0], threads=1)
    run = gi.train(recipe, tmp_path / name, progress=False)
    adam = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = {n: w.clone() for n, w in run.weights(0).items()}
    trained = {n: weights[n] for n in run.architecture.trained(recipe.biases)}
    optimizer = adam(list(trained.values()), lr=recipe.lr, betas=recipe.betas,
                     weight_decay=recipe.weight_decay, fused=True)  # fmt: skip
    batches = Batches(recipe, run.train_indices)
    for update in range(6):
        rows = batches.rows(update)
        find = run.architecture.gradients_on(
            run.task.model_inputs[rows], run.task.targets[rows], recipe.build("objective")
        )
        with torch.no_grad():
            gradients = find(weights)
        for n, weight in trained.items():
            weight.grad = gradients[n].contiguous()
        optimizer.step()
    torch.set_num_threads(before)
    assert all(torch.equal(w, weights[n]) for n, w in run.weights().items())
    content = (run.path / "run.json").read_text()
    assert '"format": 1' in content  # which 0.2.0 reads
    assert '"constraint"' not in content


def test_a_recipe_of_new_keys_says_that_it_is_newer(runs):
    content = (runs(norm_clamp="none").path / "run.json").read_text()
    assert '"format": 2' in content
