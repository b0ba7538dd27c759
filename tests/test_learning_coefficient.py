"""The local learning coefficient: losses with a known answer, networks by a dense Hessian, runs."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import grokinterp as gi
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.sweeps import measured

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

chain_of = partial(gi.geometry.langevin_chain, n_rows=1)
llc = gi.geometry.local_learning_coefficient


def bowl(curvatures, slope=None):
    """1/2 sum h w^2 + g w, whatever the rows."""
    slope = torch.zeros_like(curvatures) if slope is None else slope

    def loss(theta, rows):
        return float((curvatures * theta / 2 + slope) @ theta), curvatures * theta + slope

    return loss


def of_bowl(curvatures, n_beta, gamma, *, epsilon=0.0, slope=0.0):
    """What the density of a bowl has, and with `epsilon` what steps of that length make of it."""
    spring = n_beta * curvatures + gamma
    width = 1 / (spring * (1 - epsilon * spring / 4))
    away = -n_beta * slope / spring
    excess = curvatures * (width + away**2) / 2 + slope * away
    return float(n_beta * excess.sum())


def test_a_bowl_has_half_the_sum_of_shares():
    curvatures = torch.logspace(-2, 2, 2000, dtype=torch.float64)
    n_beta, gamma, epsilon = 10.0, 20.0, 4e-4
    chain = chain_of(
        bowl(curvatures), torch.zeros(2000), n_beta=n_beta, gamma=gamma, epsilon=epsilon,
        n_draws=3000,
    )  # fmt: skip
    found = chain.estimate(0.0)
    # 2 % are three standard deviations of such a chain; the steps' width is 4 %.
    assert found == pytest.approx(of_bowl(curvatures, n_beta, gamma, epsilon=epsilon), rel=0.02)
    shares = (n_beta * curvatures / (n_beta * curvatures + gamma)).sum() / 2
    assert found == pytest.approx(float(shares), rel=0.06)
    halved = chain_of(
        bowl(curvatures), torch.zeros(2000), n_beta=n_beta, gamma=gamma, epsilon=epsilon / 4,
        n_draws=4000,
    )  # fmt: skip
    assert halved.estimate(0.0) == pytest.approx(float(shares), rel=0.02)  # nearer to the density


def test_a_regular_minimum_has_half_its_dimension():
    curvatures = torch.linspace(1, 3, 600, dtype=torch.float64)
    chain = chain_of(
        bowl(curvatures), torch.zeros(600), n_beta=1000, gamma=0, epsilon=5e-5, n_draws=2000
    )
    assert chain.estimate(0.0) == pytest.approx(300, rel=0.05)


def test_a_linear_model_has_half_its_rank_also_on_batches():
    """Weights [20, 60] of rank-5 inputs: 60 outputs of 5 / 2 each, without noise in the labels."""
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    inputs = draw(400, 5) @ torch.linalg.qr(draw(20, 5))[0].T
    seen = []

    def loss(theta, rows):
        seen.append(rows)
        x = inputs[rows]
        outputs = x @ theta.view(20, 60)
        return float(outputs.square().sum() / len(x) / 2), (x.T @ outputs / len(x)).flatten()

    for batch_size in (400, 100):
        seen.clear()
        chain = gi.geometry.langevin_chain(
            loss, torch.zeros(1200), n_rows=400, n_beta=1000, gamma=1, epsilon=1e-4, n_draws=1000,
            batch_size=batch_size,
        )  # fmt: skip
        assert chain.estimate(0.0) == pytest.approx(60 * 5 / 2, rel=0.06)
        assert all(len(rows.unique()) == batch_size == len(rows) for rows in seen)
        assert (seen[0].tolist() == seen[1].tolist()) == (batch_size == 400)


def crossing(n_beta, gamma):
    """n_beta E (w1 w2)^2 in the density of (w1 w2)^2 and a spring, by quadrature over ln w1.

    For a given w1, w2 is normal with variance 1 / (2 n_beta w1^2 + gamma).
    """

    def density(t):
        w = math.exp(t)
        return w * math.exp(-gamma * w * w / 2) / math.sqrt(2 * n_beta * w * w + gamma)

    def excess(t):
        w2 = math.exp(2 * t)
        return density(t) * n_beta * w2 / (2 * n_beta * w2 + gamma)

    over, total = (quad(f, -40, 5, limit=500, points=[-15, -8, -2])[0] for f in (excess, density))
    return over / total


def test_a_normal_crossing_has_a_half_less_its_multiplicity():
    """L = (w1 w2)^2: 1/2 of multiplicity 2, so 1/2 - 1 / (ln n_beta + c) at a finite n_beta."""
    gaps = [1 / (0.5 - crossing(n_beta, 1.0)) for n_beta in (1e6, 1e9, 1e12)]
    assert np.diff(gaps) == pytest.approx(math.log(1e3), rel=0.01)
    copies = 1500

    def loss(theta, rows):
        one, two = theta.view(2, copies)
        return float((one * two).square().sum()), 2 * torch.cat([one * two**2, two * one**2])

    chain = chain_of(loss, torch.zeros(2 * copies), n_beta=30, gamma=1, epsilon=2e-3, n_draws=4000)
    assert chain.estimate(0.0) / copies == pytest.approx(crossing(30, 1.0), rel=0.04)
    assert crossing(30, 1.0) < 0.4


def test_a_walk_that_runs_away_says_so():
    steep = chain_of(
        bowl(torch.full((3,), 100.0)), torch.ones(3), n_beta=100, gamma=1, epsilon=1, n_draws=300
    )
    assert not steep.finite
    assert len(steep.losses) == len(steep.distances) < 300
    assert math.isnan(steep.estimate(0.0))


def test_a_walk_is_that_of_its_seed_and_leaves_its_start_alone():
    start = torch.ones(5)
    walks = [
        chain_of(bowl(torch.ones(5)), start, n_beta=1, gamma=1, epsilon=0.1, n_draws=10, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert walks[0].losses.tolist() == walks[1].losses.tolist() != walks[2].losses.tolist()
    assert start.tolist() == [1] * 5
    assert walks[0].losses[0] == 2.5
    assert walks[0].distances[0] == 0
    assert len(walks[0].fifths()) == 5


# Of networks


class Linear(torch.nn.Module):
    """Logits that are sums of rows of a table: 7 x 56 weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(8, 7)

    def forward(self, tokens):
        return self.table(tokens).sum(1)


@pytest.fixture(scope="module")
def linear():
    task = gi.ModularTask("add", p=7)
    return Linear(), {"task": task, "train_mask": torch.arange(49) % 3 > 0}


def test_a_network_held_tightly_has_the_value_of_its_hessian(linear):
    """Also of weights that are no minimum, whose loss falls: its gradient and dense Hessian."""
    module, about = linear
    gamma, epsilon, n_beta = 2000.0, 1e-4, 2000.0
    found = llc(
        module, gamma=gamma, epsilon=epsilon, n_beta=n_beta, n_draws=1000, n_chains=1, halve=False,
        burn_in=0.1, **about,
    )  # fmt: skip
    task, mask = about["task"], about["train_mask"]
    tokens, labels = task.tokens[mask], task.labels[mask]
    weights = module.table.weight.detach().double()

    def loss(table):
        return torch.nn.functional.cross_entropy(table.view(8, 7)[tokens].sum(1), labels)

    flat = weights.flatten()
    hessian = torch.autograd.functional.hessian(loss, flat)
    at = flat.clone().requires_grad_()
    slope = torch.autograd.grad(loss(at), at)[0]
    h, basis = torch.linalg.eigh(hessian)
    known = of_bowl(h, n_beta, gamma, epsilon=epsilon, slope=basis.T @ slope)
    assert known < -10
    assert found.value == pytest.approx(known, rel=0.04)
    basin = found.basins[0]
    assert basin.below > 0.9
    assert any(warning.startswith("negative") for warning in found.warnings)
    assert basin.loss == pytest.approx(float(loss(flat)), rel=1e-12)
    assert basin.n_weights == 56
    assert basin.curvature == pytest.approx(float(h.max()), rel=0.4)  # where the chain ended
    assert basin.stability == pytest.approx(epsilon * (n_beta * basin.curvature + gamma) / 4)


@pytest.fixture(scope="module")
def small():
    return llc("mod31-small", [300, 10_000], n_draws=120, n_samples=200, halve=False)


def test_it_falls_as_the_network_generalises(small):
    table = small.table()
    assert table.value[0] > 10 * table.value[1] > 0
    assert table.accuracy.tolist() == [1, 1]
    assert table.end_accuracy[0] < 0.9 < table.end_accuracy[1]
    assert not small.basins[1].warnings or "settled" not in small.basins[1].warnings[0]


def test_a_radius_sets_gamma_and_rows_set_n_beta(small):
    n = small.n_samples
    assert (n, small.n_rows) == (200, 624)
    for basin in small.basins:
        weights = gi.load("mod31-small").weights(basin.step)
        norm = math.sqrt(sum(float(x.double().square().sum()) for x in weights.values()))
        assert basin.radius == pytest.approx(0.3, rel=1e-12)
        assert basin.noise_distance == pytest.approx(0.3 * norm, rel=1e-6)
        assert basin.distance == pytest.approx(basin.noise_distance, rel=0.05)
        assert basin.n_beta == pytest.approx(n / math.log(n))
        assert basin.epsilon * basin.gamma == pytest.approx(0.05)
        assert basin.value == pytest.approx(np.mean(basin.per_chain))
        assert basin.spread == pytest.approx(np.std(basin.per_chain, ddof=1))
        later = basin.losses[:, 60:].mean().item() - basin.loss
        assert basin.value == pytest.approx(basin.n_beta * later)
    assert [name for name, _, _ in small.phases] == [
        "memorization", "circuit_formation", "cleanup",
    ]  # fmt: skip
    with pytest.raises(gi.InputError, match=r"2 steps have a value each; read .table"):
        _ = small.value


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"gamma": 1e6, "n_draws": 40}, "saturated"),
        ({"step": 300, "radius": 1, "epsilon": 2e-4, "n_draws": 120}, "left the basin"),
        ({"epsilon": 0.05, "n_draws": 20}, "unstable"),
        ({"n_draws": 20}, "not settled"),
    ],
)
def test_what_speaks_against_a_number_is_said(options, warning):
    found = llc("mod31-small", n_chains=1, n_samples=200, halve=False, **options)
    assert any(each.startswith(warning) for each in found.warnings)
    assert set(found.warnings) <= set(found.notes)
    assert warning in str(found)


def test_of_chains_that_ran_away_nothing_is_known():
    found = llc("mod31-small", [300, 10_000], epsilon=1.0, n_draws=20, n_samples=64)
    assert found.table()[["value", "spread", "halved"]].isna().all(axis=None)
    assert all(each.warnings[0].startswith("unstable") for each in found.basins)
    assert "ran away" in str(found)


def test_a_loss_that_is_none_is_refused():
    start, options = torch.zeros(4), {"n_rows": 1, "n_beta": 1, "gamma": 1, "epsilon": 0.1}
    for loss in (3, lambda w, rows: None, lambda w, rows: (1.0, w[:3]), lambda w, rows: ("a", w)):
        with pytest.raises(gi.InputError, match=r"returns the mean loss, a number, and its grad"):
            gi.geometry.langevin_chain(loss, start, **options)
    chain = gi.geometry.langevin_chain(lambda w, rows: (1.0, w), start, **options)
    for share in (-1, 2, "a"):
        with pytest.raises(gi.InputError, match=r"burn_in=.* is not a number from 0 to 0\.9"):
            chain.estimate(1.0, burn_in=share)


def test_half_the_step_is_as_long_in_time():
    found = llc("mod31-small", 300, n_draws=20, n_samples=200, batch_size=50)
    basin = found.basins[0]
    assert basin.losses.shape == (2, 20)
    assert basin.halved_losses.shape == (2, 40)
    assert len(basin.halved_per_chain) == 2
    later = basin.halved_losses[:, 20:].mean().item() - basin.loss
    assert basin.halved == pytest.approx(basin.n_beta * later)
    assert basin.n_rows == found.n_samples == 200
    assert found.n_rows == 624
    plain = json.loads(json.dumps(found.to_dict()))
    assert len(plain["basins"][0]["losses"][0]) == 20
    drawn = found.plot()
    assert [line.name for line in drawn.data] == [
        "chain 1", "chain 2", "half the step 1", "half the step 2",
    ]  # fmt: skip
    assert max(drawn.data[2].x) == 19.5


def test_over_training_it_is_drawn_over_the_phases(small):
    drawn = small.plot()
    assert list(drawn.data[0].y) == small.table().value.tolist()
    assert drawn.layout.yaxis.type == "log"
    assert sum(shape.type == "rect" for shape in drawn.layout.shapes) == 3


def of_kinds():
    task, ising = (
        gi.ModularTask("add", p=7),
        gi.IsingTask(8, n_train=20, n_test=20, n_temperatures=8),
    )
    norms = TransformerArchitecture(
        n_layers=2, n_heads=2, d_model=8, d_head=4, d_mlp=8, d_vocab=8, d_vocab_out=7, n_ctx=3,
        normalization_type="LN",
    )  # fmt: skip
    cnn = CNNArchitecture(lattice=8, channels=(2,), d_mlp=5)
    for each, architecture in ((task, norms), (ising, cnn)):
        mask = torch.arange(each.n_inputs) % 2 == 0
        model = architecture.hooked(architecture.initial(seed=0))
        yield gi.snapshot(model, each, train_mask=mask)


def test_other_networks_are_sampled_too():
    for snapshot in of_kinds():
        found = llc(snapshot, n_draws=10, n_chains=1, halve=False)
        assert math.isfinite(found.value)
        assert found.steps == (None,)
    assert math.isfinite(llc("mlp113-grokked", 2800, n_samples=50, n_draws=5, halve=False).value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "radius=0 is not a number above 0"),
        ({"gamma": -1}, "gamma=-1 is not a number above 0"),
        ({"epsilon": "a"}, "epsilon='a' is not a number above 0"),
        ({"n_beta": 0}, "n_beta=0 is not a number above 0"),
        ({"n_draws": 2}, "n_draws=2 is not a whole number from 5 on"),
        ({"n_chains": 0}, "n_chains=0 is not a whole number from 1 on"),
        ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
        ({"burn_in": 1}, "burn_in=1 is not a number from 0 to 0.9"),
        ({"halve": 1}, "halve=1 is neither True nor False"),
        ({"rows": "tset"}, "rows='tset' is not known; did you mean 'test'"),
        ({"step": [300, 200]}, "do not rise"),
        ({"n_samples": 1}, "n / ln n needs at least 2 rows; give n_beta="),
    ],
)
def test_what_cannot_be_sampled_is_refused(options, message):
    with pytest.raises(gi.InputError, match=message):
        llc("mod31-small", **options)


def test_without_a_split_other_rows_are_asked_for(linear):
    module, about = linear
    with pytest.raises(gi.InputError, match="give train_mask= or rows='all'"):
        llc(module, task=about["task"])


def test_it_is_a_measure(tiny_run):
    row = measured(tiny_run, ["learning_coefficient"])
    weights = tiny_run.weights(tiny_run.steps[-1])
    norm = math.sqrt(sum(float(x.square().sum()) for x in weights.values()))
    assert row["llc_distance"] == pytest.approx(0.3 * norm, rel=0.1)
    assert math.isfinite(row["llc_value"])
    assert {"llc_spread", "llc_end_accuracy", "llc_stability"} <= {*row}


@pytest.mark.slow
def test_the_big_transformer_at_one_setting():
    """n_beta 464, epsilon 5e-5, gamma 1000; within a factor of two of what another hand found."""
    known = {1200: 152, 4800: 35, 5800: 24.6, 7000: 3.6, 12_000: 0.24}
    found = llc("mod113-grokked", list(known), gamma=1e3, epsilon=5e-5, halve=False).table()
    assert found.value.is_monotonic_decreasing
    for value, other in zip(found.value, known.values(), strict=True):
        assert other / 2 < value < 2 * other
    assert found.value.iloc[-1] < 1
    assert found.end_accuracy[0] == pytest.approx(0.90, abs=0.02)
    assert found.end_accuracy[2] == pytest.approx(0.98, abs=0.02)
    two_hot = llc("mlp113-grokked", [2800, 11_200], halve=False).table()  # 1,150 and 54.3
    assert two_hot.value.tolist() == pytest.approx([1150, 54.3], rel=0.1)
    assert two_hot.end_accuracy[0] < 0.8 < two_hot.end_accuracy[1]
    tight = llc("mod113-grokked", [1200, 4800], gamma=1e4, epsilon=5e-6, halve=False)
    assert tight.table().value.tolist() == pytest.approx([0.13, 0], abs=0.1)
    assert all("saturated" in " ".join(basin.warnings) for basin in tight.basins)
